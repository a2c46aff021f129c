"""Render the page of a study: read its files, draw its figures, write one file."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ml_core.errors import RunError
from ml_core.findings import Finding
from ml_core.page import text
from ml_core.page.figure_style import save_figure
from ml_core.page.svg import figure_to_svg
from ml_core.page.template import load_template
from ml_core.runs import write_text
from ml_core.search.page.facts import StudyFacts
from ml_core.search.page.figures import PageFigure, build_figures
from ml_core.search.page.findings import study_findings
from ml_core.search.page.rows import parameter_rows, trial_rows
from ml_core.search.page.verdict import build_verdict, cost_in_words

_PACKAGE = "ml_core.search.page"


def render_study(
    facts: StudyFacts, comparison: Mapping[str, Any] | None = None
) -> tuple[Path, Sequence[Finding]]:
    """Write study.html and figures/*.png of a study; return the page's path and its findings.

    The page needs nothing else: no network, no font, no script. It is of the study as it stands,
    ended or not, and the same files give the same bytes. `comparison`: see `study_findings`.

    Raises RunError when a file cannot be written.
    """
    study, figures = facts.study, build_figures(facts)
    findings = study_findings(facts, comparison)
    html = _template().render(
        facts=facts,
        record=facts.record,
        verdict=build_verdict(facts),
        findings=findings,
        figures=[(figure, _svg(figure)) for figure in figures],
        parameters=parameter_rows(facts),
        trials=trial_rows(facts),
        css=_css(),
    )
    try:
        study.figures_dir.mkdir(exist_ok=True)
        for old in study.figures_dir.glob("slice_*.png"):  # of keys of an earlier page
            old.unlink(missing_ok=True)  # another command may finish the study as well
        for figure in figures:
            save_figure(figure.figure, study.figures_dir / f"{figure.name}.png")
        write_text(study.page_path, html)
    except OSError as error:
        raise RunError(
            f"cannot write the page {study.page_path} or its figures: {error.strerror or error}. "
            "Free space or get the right to write there, then: ml-core report STUDY."
        ) from error
    return study.page_path, findings


def _svg(figure: PageFigure) -> Markup:
    return figure_to_svg(figure.figure, figure.name.replace(".", "-"), figure.description)


def _css() -> Markup:
    sheets = (("ml_core.page", "page.css"), (_PACKAGE, "study.css"))
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
        text.decimal, text.count, text.percent, text.duration, text.moment, text.plain,
        text.short_hash, cost_in_words, code_spans,
    )  # fmt: skip
    return load_template(_PACKAGE, "study.html.j2", filters)
