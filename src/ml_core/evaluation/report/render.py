"""Render the report: read the runs, work out the page, write one file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from ml_core.errors import RunError
from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.overview import build_overview, run_names
from ml_core.evaluation.report.page import build_run_page
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.evaluation.report.scores import BASELINE_LABELS, OVERVIEW
from ml_core.page import text
from ml_core.page.template import load_template
from ml_core.runs import RunDir, write_text

_PACKAGE = "ml_core.evaluation.report"


def render_report(
    runs: Sequence[RunDir], out_path: Path, read_patches: ReadPatches | None = None
) -> Path:
    """Write one HTML file about `runs` to `out_path` and return that path.

    The file needs nothing else: no network, no font, no script. Only files of the runs are read,
    and each block names its own; what is absent is said to be. With `read_patches(split, index)`,
    which gives patches at rising rows as (N, H, W, 3) uint8, it also shows the patches that the
    model is most certainly wrong about. The same files give the same bytes.

    Raises RunError without runs, for a run without run.json, and when it cannot be written.
    """
    if not runs:
        raise RunError("there is no run to report on; give at least one run directory.")
    all_facts = [read_run_facts(run) for run in runs]
    pages = [
        build_run_page(facts, f"run{number}", read_patches)
        for number, facts in enumerate(all_facts, start=1)
    ]
    html = _template().render(
        pages=pages,
        names=run_names(all_facts),
        overview=build_overview(pages) if len(pages) > 1 else None,
        css=Markup(
            resources.files("ml_core.page").joinpath("page.css").read_text(encoding="utf-8")
        ),
        metric_labels=METRIC_LABELS,
        baseline_labels=BASELINE_LABELS,
        overview_metrics=OVERVIEW,
    )
    try:
        write_text(out_path, html)
    except OSError as error:
        raise RunError(
            f"cannot write the report {out_path}: {error.strerror or error}. "
            "Name another file, in a folder you may write to."
        ) from error
    return out_path


@functools.cache  # to compile the template takes longer than to fill it
def _template() -> jinja2.Template:
    filters = (
        text.decimal, text.signed, text.count, text.percent, text.duration, text.moment,
        text.short_hash, text.plain,
    )  # fmt: skip
    return load_template(_PACKAGE, "report.html.j2", filters)
