"""Render the page of an audit: draw its figures, read its patches, write one file."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from ml_core.audit.page import evidence, examples, splits, verdict
from ml_core.audit.page.columns import split_slices
from ml_core.audit.page.figures import PageFigure, build_figures
from ml_core.audit.page.limits import LIMITS
from ml_core.audit.page.thumbnails import ReadPatches, load_thumbnails
from ml_core.errors import DataError
from ml_core.page import text
from ml_core.page.figure_style import save_figure
from ml_core.page.svg import figure_to_svg
from ml_core.page.template import load_template
from ml_core.runs import write_text

_PACKAGE = "ml_core.audit.page"


def render_audit(
    audit: Mapping[str, Any],
    patches: pd.DataFrame,
    read: ReadPatches,
    out_path: Path,
    figures_dir: Path,
) -> Path:
    """Write one HTML file about `audit` to `out_path` and its figures to `figures_dir` as PNG.

    `audit` is the content of audit.json, `patches` the table of patches.parquet. `read(split,
    rows)` gives the patches at rising rows of the source file, (n, H, W, 3) uint8; a patch for
    which it raises DataError is said not to be readable. The page needs nothing else: no network,
    no font, no script. The same arguments give the same bytes. Returns `out_path`.

    Raises DataError when a file cannot be written.
    """
    where = split_slices(patches, audit.get("splits", {}))
    cards = evidence.build_cards(audit.get("findings", ()))
    class_strips = examples.class_strips(patches, where)
    outlier_strips = examples.outlier_strips(patches)
    wanted = [
        *evidence.places_of(cards),
        *examples.places_of(class_strips),
        *examples.places_of(outlier_strips),
    ]
    figures = build_figures(audit, patches, where)
    html = _template().render(
        audit=audit,
        verdict=verdict.build_verdict(audit, cards),
        is_quick=verdict.is_quick(audit),
        command=verdict.command_of(audit),
        split_names=list(audit.get("splits", {})),
        split_rows=splits.split_rows(audit.get("splits", {})),
        cards=cards,
        figures=[(figure, _svg(figure)) for figure in figures],
        figures_dir=figures_dir.name,
        class_strips=class_strips,
        outlier_strips=outlier_strips,
        thumbnails=load_thumbnails(read, wanted),
        captions=examples.captions(patches, wanted),
        limits=LIMITS,
        css=_css(),
    )
    try:
        figures_dir.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            save_figure(figure.figure, figures_dir / f"{figure.name}.png")
        write_text(out_path, html)
    except OSError as error:
        raise DataError(
            f"cannot write the page {out_path} or its figures: {error.strerror or error}. "
            "Name another folder, one you may write to."
        ) from error
    return out_path


def _svg(figure: PageFigure) -> Markup:
    return figure_to_svg(figure.figure, figure.name, figure.description)


def _css() -> Markup:
    sheets = (("ml_core.page", "page.css"), (_PACKAGE, "audit.css"))
    return Markup(
        "\n".join(
            resources.files(package).joinpath(name).read_text(encoding="utf-8")
            for package, name in sheets
        )
    )


def code_spans(sentence: str) -> Markup:
    """Return `sentence` escaped, what stands between backticks as <code>."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


@functools.cache  # to compile the template takes longer than to fill it
def _template() -> jinja2.Template:
    filters = (
        text.count, text.percent, text.duration, text.moment, text.plain, splits.size,
        verdict.number_of, code_spans,
    )  # fmt: skip
    return load_template(_PACKAGE, "audit.html.j2", filters)
