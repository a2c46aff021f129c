"""Which patches of one slide cover the same tissue, by their coordinates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

Rows = npt.NDArray[np.int64]


def find_overlaps(
    patches: pd.DataFrame, first: str, second: str, footprint: float
) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
    """Return rows of `first` that overlap one of `second`, that row, and the share of area shared.

    Each row is compared with the one nearest to it on its slide by the larger of the two distances,
    in n log n time. Rows without slide or coordinates are skipped; `first` may be `second`.
    """
    rows, others, areas = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    points = patches[["coord_x", "coord_y"]].to_numpy(np.float64)
    of_second = _rows_by_slide(patches, second)
    for slide, here in _rows_by_slide(patches, first).items():
        there = of_second.get(slide)
        if there is None:
            continue
        nearest = _nearest(points, here, there) if first != second else _nearest_other(points, here)
        gaps = np.abs(points[here] - points[nearest])  # (n, 2)
        area = np.clip(1 - gaps / footprint, 0, None).prod(axis=1)
        hit = (area > 0) & (here != nearest)
        rows.append(here[hit])
        others.append(nearest[hit])
        areas.append(area[hit])
    found = np.concatenate(rows)
    order = np.argsort(found)
    return found[order], np.concatenate(others)[order], np.concatenate(areas)[order]


def _rows_by_slide(patches: pd.DataFrame, split: str) -> dict[str, Rows]:
    known = (patches["split"] == split) & patches["coord_x"].notna() & patches["coord_y"].notna()
    rows = np.flatnonzero(known)
    # groupby leaves out rows without a slide
    groups = pd.Series(rows).groupby(patches["slide"].iloc[rows].to_numpy(), sort=True)
    return {str(slide): group.to_numpy() for slide, group in groups}


def _nearest(points: npt.NDArray[np.float64], here: Rows, there: Rows) -> Rows:
    """Return for each row of `here` the row of `there` nearest to it."""
    places, keep = np.unique(points[there], axis=0, return_index=True)
    _, found = cKDTree(places).query(points[here], p=np.inf)
    nearest: Rows = there[keep[found]]
    return nearest


def _nearest_other(points: npt.NDArray[np.float64], rows: Rows) -> Rows:
    """Return for each row the nearest other one, or itself where it is alone.

    Rows at one place are each other's nearest; the tree holds places, since many equal points
    would make it as slow as comparing all pairs.
    """
    places, keep, at, counts = np.unique(
        points[rows], axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    at = at.reshape(-1)
    nearest = rows.copy()
    if len(places) > 1:
        _, found = cKDTree(places).query(places, k=2, p=np.inf)
        # the place itself comes first: no other is at distance 0
        nearest = rows[keep[found[at, 1]]]
    order = np.argsort(at, kind="stable")
    following = np.empty_like(order)  # the next row at the same place, round in a circle
    ends = np.cumsum(counts)
    step = np.arange(1, len(order) + 1)
    step[ends - 1] = ends - counts
    following[order] = order[step]
    shared = counts[at] > 1
    nearest[shared] = rows[following[shared]]
    return nearest
