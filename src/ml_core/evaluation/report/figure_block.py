"""A figure on the page: its heading, its picture, and the file its numbers are from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from ml_core.page.svg import figure_to_svg
from ml_core.page.text import decimal

_AREAS = {"roc": "roc_auc", "precision_recall": "pr_auc"}


@dataclass(frozen=True)
class FigureBlock:
    """A figure with its heading and the file its numbers are from."""

    name: str
    title: str
    svg: Markup
    source: str


def figure_block(
    figure: Figure, name: str, anchor: str, title: str, description: str, source: str
) -> FigureBlock:
    """Return `figure` as a block whose ids start with `anchor`; `description` is read aloud."""
    return FigureBlock(
        name, title, figure_to_svg(figure, f"{anchor}-{name}", f"{description}."), source
    )


def area_note(name: str, scores: Mapping[str, Any] | None) -> str:
    """Return "; area 0.944" for the curves that have one, else ""."""
    if scores is None or name not in _AREAS:
        return ""
    return f"; area {decimal(scores['metrics'].get(_AREAS[name], {}).get('value'))}"
