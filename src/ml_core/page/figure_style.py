"""How figures look: size, colours, lines; one style for every page.

Colours are Okabe and Ito's, which the colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#24292f", "#6e7781", "#d8dee4", "#ffffff"
BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, ORANGE, SKY = "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
NORMAL_COLOR, TUMOUR_COLOR = BLUE, VERMILLION

FIGURE_SIZE = (4.1, 3.1)  # inches: text stays readable when a phone shows it at full width
PNG_DPI = 200

STYLE: Any = {  # matplotlib types its keys one by one, and differently by release
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.parse_math": False,  # a run named "$a$" is written as it is
    "svg.fonttype": "none",  # text stays text: selectable, and in the font of the page
}


@contextmanager
def house_figure(size: tuple[float, float] = FIGURE_SIZE, **margins: float) -> Iterator[Figure]:
    """Yield an empty figure, `size` in inches, to be drawn on in the house style.

    It is of the object interface: nothing is drawn on a screen and no state is shared.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size)
        figure.subplots_adjust(**margins)
        FigureCanvasAgg(figure)
        yield figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG on white; raises OSError."""
    figure.savefig(path, dpi=PNG_DPI, facecolor=PAPER)
