"""The patches that look most alike to a model: nearest in its features, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.errors import RunError
from ml_core.evaluation.feature_table import FeatureTable

NUM_NEIGHBOURS = 5
_BLOCK_CELLS = 2**22  # distances held at once: 32 MB
_NEARLY = 1e-9  # distances that differ by less may be ranked either way by their squares


@dataclass(frozen=True)
class Neighbours:
    """The nearest patches of `split` to each patch of `query_index`, nearest first.

    `index`, `label` and `distance` are (N, k); `label` is -1 where there is none.
    """

    split: str
    query_index: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]

    def of(self, row: int) -> tuple[dict[str, Any], ...]:
        """Return those of one query as JSON has them: split, index, label (or None), distance."""
        columns = (each[row].tolist() for each in (self.index, self.label, self.distance))
        return tuple(
            {
                "split": self.split,
                "index": index,
                "label": label if label >= 0 else None,
                "distance": distance,
            }
            for index, label, distance in zip(*columns, strict=True)
        )


def find_neighbours(
    queries: FeatureTable, reference: FeatureTable, k: int = NUM_NEIGHBOURS
) -> Neighbours:
    """Return the `k` patches of `reference` (fewer if it has fewer) nearest to each of `queries`.

    Of one split, a patch is no neighbour of itself. Raises RunError for tables of other weights or
    widths, whose distances would mean nothing.
    """
    if (queries.weights_sha256, queries.features.shape[1]) != (
        reference.weights_sha256,
        reference.features.shape[1],
    ):
        raise RunError(
            f"the features of {queries.split} are of the weights "
            f"{str(queries.weights_sha256)[:12]} ({queries.features.shape[1]} columns), those of "
            f"{reference.split} of {str(reference.weights_sha256)[:12]} "
            f"({reference.features.shape[1]}); distances between them mean nothing. "
            "Make both again with the explain stage."
        )
    own = None
    if queries.split == reference.split:
        own = _rows_of(reference.index, queries.index)
    rows, distance = nearest(queries.features, reference.features, k, leave_out=own)
    labels = np.full(len(reference), -1) if reference.y_true is None else reference.y_true
    return Neighbours(reference.split, queries.index, reference.index[rows], labels[rows], distance)


def nearest(
    queries: npt.NDArray[np.floating[Any]],
    reference: npt.NDArray[np.floating[Any]],
    k: int,
    *,
    leave_out: npt.NDArray[np.int64] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return rows of `reference` (M, D) nearest to each of `queries` (N, D), and how far they are.

    Both (N, min(k, M)), nearest first, ties by row; Euclidean. `leave_out` (N,) names a row that
    each query may not have, -1 for none, and leaves one fewer. In blocks of bounded memory:
    32,768 against 5,000 of width 64 take 3 s on one core. Raises ValueError for k below 1 or no
    row to be near to.
    """
    num_rows = len(reference) - (leave_out is not None)
    if k < 1 or num_rows < 1:
        raise ValueError(f"k is {k} among {num_rows} rows; needed is at least 1 of at least 1.")
    k = min(k, num_rows)
    centre = reference.mean(axis=0, dtype=np.float64)  # far from it squares would cancel
    points = reference - centre
    squares = np.einsum("md,md->m", points, points)
    block = max(1, _BLOCK_CELLS // len(reference))
    found = [
        _nearest(
            queries[start : start + block] - centre,
            points,
            squares,
            k,
            None if leave_out is None else leave_out[start : start + block],
        )
        for start in range(0, len(queries), block)
    ]
    if not found:
        return np.zeros((0, k), np.int64), np.zeros((0, k))
    rows, distances = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(distances)


def _nearest(
    queries: npt.NDArray[np.float64],
    points: npt.NDArray[np.float64],
    squares: npt.NDArray[np.float64],
    k: int,
    leave_out: npt.NDArray[np.int64] | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return rows and distances of one block, (B, k)."""
    ranked = squares - 2 * (queries @ points.T)  # (B, M): short of the query's own square
    if leave_out is not None:
        barred = np.flatnonzero(leave_out >= 0)
        ranked[barred, leave_out[barred]] = np.inf
    candidates = min(k + 3, ranked.shape[1])  # rounding may turn near ties round
    rows = np.argpartition(ranked, candidates - 1, axis=1)[:, :candidates]
    distance = np.linalg.norm(points[rows] - queries[:, None], axis=2)
    distance[np.isinf(np.take_along_axis(ranked, rows, axis=1))] = np.inf
    order = np.lexsort((rows, distance), axis=1)
    rows, distance = (np.take_along_axis(each, order, axis=1) for each in (rows, distance))
    if candidates < ranked.shape[1]:
        # as far as the last candidate: more ties than candidates, such as many repeats
        crowded = distance[:, -1] <= distance[:, k - 1] * (1 + _NEARLY) + _NEARLY
        for query in np.flatnonzero(crowded):
            apart = np.linalg.norm(points - queries[query], axis=1)
            apart[np.isinf(ranked[query])] = np.inf
            rows[query] = np.argsort(apart, kind="stable")[:candidates]
            distance[query] = apart[rows[query]]
    return rows[:, :k], distance[:, :k]


def _rows_of(among: npt.NDArray[np.int64], index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the row of each `index` in `among`, -1 where it is not there."""
    order = np.argsort(among)
    place = np.searchsorted(among[order], index).clip(max=len(among) - 1)
    rows = order[place]
    return np.where(among[rows] == index, rows, -1)
