"""Every metric of one set of predictions under many weights on its patches."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ml_core.metrics.areas import tie_ends, weighted_areas
from ml_core.metrics.arrays import Floats, Ints, ratio
from ml_core.metrics.scores import HIGHER_IS_BETTER, metrics_from_counts

AREAS = ("roc_auc", "pr_auc")


class WeightedMetrics:
    """The metrics of predictions in which patch i counts as often as a weight says.

    `compute` takes weights whose columns are the patches in the order they were given here. A row's
    values depend on that row alone, to the last bit, so blocks of any size give the same.
    """

    def __init__(self, labels: Ints, probs: Floats, losses: Floats, threshold: float) -> None:
        positive, called = labels == 1, probs >= threshold
        cells = (~positive & ~called, ~positive & called, positive & ~called, positive & called)
        self._cells = np.stack(cells, axis=1).astype(np.float64)  # (n, 4)
        self._means = {"loss": losses, "brier": (probs - labels) ** 2}
        self._order: Ints | None = np.argsort(-probs, kind="stable")
        self._ranked_labels = labels[self._order]
        self._tie_ends = tie_ends(probs[self._order])
        if (np.diff(self._order) == 1).all():
            self._order = None  # ranked as they come: weights need no gathering

    def compute(
        self, weights: Floats, names: Collection[str] = tuple(HIGHER_IS_BETTER)
    ) -> dict[str, Floats]:
        """Return metric `names`, each of shape (R,), for `weights` (R, n); NaN where undefined."""
        tn, fp, fn, tp = (weights @ self._cells).T  # whole numbers: exact however they are summed
        metrics = metrics_from_counts(tn, fp, fn, tp)
        for name in self._means.keys() & set(names):
            sums = np.einsum("rn,n->r", weights, self._means[name])
            metrics[name] = ratio(sums, weights.sum(axis=1))
        if set(AREAS) & set(names):
            ranked = weights if self._order is None else np.take(weights, self._order, axis=1)
            areas = weighted_areas(self._ranked_labels, ranked, self._tie_ends)
            metrics |= dict(zip(AREAS, areas, strict=True))
        return {name: metrics[name] for name in names}
