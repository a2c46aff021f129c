"""A figure on the page: its heading, its picture, and the file its numbers are from."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from ml_core.page.svg import figure_to_svg


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
