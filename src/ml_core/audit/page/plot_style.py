"""What the figures of an audit share: the lines of splits and classes, legends, shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ml_core.page.figure_style import (
    FIGURE_SIZE,
    GREEN,
    INK,
    NORMAL_COLOR,
    ORANGE,
    PURPLE,
    TUMOUR_COLOR,
)

Floats = npt.NDArray[np.float64]

TALL = (FIGURE_SIZE[0], 4.6)  # inches: three panels, or a name and a number in each row
LONGEST_NAME = 18  # letters that fit beside a row

CLASS_LINES: dict[str, tuple[str, Any]] = {
    "normal": (NORMAL_COLOR, "-"),
    "tumour": (TUMOUR_COLOR, (0, (4, 1.5))),
}
# By order of the splits; dashes too, since colour alone does not tell lines apart for everybody.
SPLIT_LINES: tuple[tuple[str, Any], ...] = (
    (GREEN, "-"),
    (PURPLE, (0, (5, 1.5))),
    (ORANGE, (0, (1.6, 1.2))),
)


def split_lines(splits: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return (colour, dashes) of each split."""
    return {split: SPLIT_LINES[i % len(SPLIT_LINES)] for i, split in enumerate(splits)}


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Name the lines in one row above the figure."""
    figure.legend(
        handles, [short(name) for name in names], loc="upper center", ncols=max(len(names), 1),
        frameon=False, fontsize=8.5, labelcolor=INK, handlelength=2.2, columnspacing=1.6,
        borderaxespad=0.2,
    )  # fmt: skip


def percent_tick(share: float, _: int | None = None) -> str:
    """Return a share as percent for an axis."""
    return f"{100 * share:g} %"


def short(name: str) -> str:
    """Return as much of a name as fits."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
