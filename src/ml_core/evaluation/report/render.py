"""Render the report: read the runs, work out the page, write one file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ml_core.errors import RunError
from ml_core.evaluation.report.comparison import Comparison
from ml_core.evaluation.report.dynamics import PatchesOf, build_dynamics
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.overview import build_overview, run_names
from ml_core.evaluation.report.page import MAX_PICTURES, RunPage, build_run_page
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.evaluation.report.sealed_page import ReadOpenings
from ml_core.page import text
from ml_core.page.script import content_policy, load_script
from ml_core.page.template import load_template
from ml_core.runs import RunDir, write_text

_PACKAGE = "ml_core.evaluation.report"
_SHEETS = (
    ("ml_core.page", "page.css"),
    (_PACKAGE, "report.css"),
    (_PACKAGE, "failures.css"),
)


def render_report(
    runs: Sequence[RunDir],
    out_path: Path,
    read_patches: ReadPatches | None = None,
    *,
    read_openings: ReadOpenings | None = None,
    patches_of: PatchesOf | None = None,
    champions: Mapping[Path, Mapping[str, Any]] | None = None,
    comparison: Comparison | None = None,
) -> Path:
    """Write one HTML file about `runs` to `out_path` and return that path.

    The file needs nothing else: no network, no font; its one script is inside, and the page lets
    no other run. Only files of the runs are read, and each block links to its own, as seen from
    `out_path`; what is absent is said to be. With `read_patches(split, index)`, which gives patches
    at rising rows as (N, H, W, 3) uint8, it also shows the patches that the model is most certainly
    wrong about. The same files give the same bytes.

    Where the test split was opened for a run, the first line says how often that test set was
    opened: as `read_openings(run, x_sha256)` counts now, else as was known when it was scored.
    `champions` holds the content of champion.json by the path of the run that it chose, with its
    own "path" where it is to be linked to; `patches_of(run, steps)` tells which patches a step of
    training was made of; `comparison` is what `compare_runs` gives for two runs.

    Raises RunError without runs, for a run without run.json, and when it cannot be written.
    """
    if not runs:
        raise RunError("there is no run to report on; give at least one run directory.")
    page_dir = out_path.parent
    all_facts = [
        read_run_facts(run, (champions or {}).get(run.path), page_dir=page_dir) for run in runs
    ]
    pages = [
        build_run_page(
            facts, f"run{number}", read_patches, read_openings, MAX_PICTURES // len(runs)
        )
        for number, facts in enumerate(all_facts, start=1)
    ]
    names = run_names(all_facts)
    script = load_script()
    html = _template().render(
        pages=pages,
        names=names,
        parts=_parts(pages, names, comparison),
        dynamics=build_dynamics(
            dict(zip(names, all_facts, strict=True)),
            "run1" if len(pages) == 1 else "all",
            patches_of,
        ),
        openings=list(dict.fromkeys(page.test.said for page in pages if page.test)),
        is_unsealed=any(page.test.is_unsealed for page in pages if page.test),
        overview=build_overview(pages) if len(pages) > 1 else None,
        comparison=comparison,
        css=_css(),
        script=script,
        policy=content_policy(script),
    )
    try:
        write_text(out_path, html)
    except OSError as error:
        raise RunError(
            f"cannot write the report {out_path}: {error.strerror or error}. "
            "Name another file, in a folder you may write to."
        ) from error
    return out_path


def _parts(
    pages: Sequence[RunPage], names: Sequence[str], comparison: Comparison | None
) -> list[tuple[str, str]]:
    """Return the parts of the whole page: the id of the heading, and how it is called."""
    if len(pages) == 1:
        return [("main", "Verdict"), *pages[0].parts]
    compared = [(comparison.anchor, "A against B")] if comparison else []
    runs = [(page.anchor, name) for page, name in zip(pages, names, strict=True)]
    return [*compared, ("all-runs", "All runs"), *runs]


def _css() -> Markup:
    return Markup(
        "\n".join(
            resources.files(package).joinpath(name).read_text(encoding="utf-8")
            for package, name in _SHEETS
        )
    )


@functools.cache  # to compile the template takes longer than to fill it
def _template() -> jinja2.Template:
    filters = (
        text.decimal, text.signed, text.count, text.percent, text.duration, text.moment,
        text.short_hash, text.plain,
    )  # fmt: skip
    return load_template(_PACKAGE, "report.html.j2", filters)
