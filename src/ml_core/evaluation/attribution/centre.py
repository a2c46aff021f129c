"""The central square of a patch, which alone decides PCam's label, and how much lies in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats

# 32 of 96 pixels: "a positive label indicates that the center 32x32px region of a patch contains at
# least one pixel of tumor tissue" (Veeling et al., MICCAI 2018, and PCam's own description).
CENTRE_SIDE = 1 / 3


class Box(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of a patch, the ends left out."""

    top: int
    bottom: int
    left: int
    right: int


def centre_box(height: int, width: int, side: float = CENTRE_SIDE) -> Box:
    """Return the central box whose sides are `side` of the patch's, in whole pixels.

    Raises ValueError where nothing, or everything, would be inside.
    """
    rows, columns = round(height * side), round(width * side)
    if not (0 < rows < height and 0 < columns < width):
        raise ValueError(
            f"a central box of {side:g} of the sides of {height} x {width} pixels holds "
            f"{rows} x {columns}; allowed are shares that leave pixels inside and outside of it."
        )
    top, left = (height - rows) // 2, (width - columns) // 2
    return Box(top, top + rows, left, left + columns)


def share_of_area(box: Box, height: int, width: int) -> float:
    """Return which share of a patch lies in `box`: what an even map has in it."""
    return (box.bottom - box.top) * (box.right - box.left) / (height * width)


def share_in_box(maps: npt.ArrayLike, box: Box, height: int, width: int) -> Floats:
    """Return which share of each map's absolute values lies in `box`, (N,).

    `maps` (N, h, w) cover patches of `height` x `width` evenly, of whatever resolution; a cell that
    the border of the box cuts counts by the area inside. NaN for a map of nothing but zeros.
    """
    sizes = np.abs(np.asarray(maps, dtype=np.float64))
    rows = _inside(sizes.shape[1], height, box.top, box.bottom)
    columns = _inside(sizes.shape[2], width, box.left, box.right)
    inside = np.einsum("nhw,h,w->n", sizes, rows, columns)
    total = sizes.sum(axis=(1, 2))
    shares: Floats = np.full(len(sizes), np.nan)
    np.divide(inside, total, out=shares, where=total > 0)
    return shares


def _inside(num_cells: int, length: int, start: int, stop: int) -> Floats:
    """Return which share of each of `num_cells` equal cells of `length` lies in start..stop."""
    edges = np.linspace(0, length, num_cells + 1)
    clipped = np.clip(edges, start, stop)
    share: Floats = np.diff(clipped) / np.diff(edges)
    return share
