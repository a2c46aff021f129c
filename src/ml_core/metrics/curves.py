"""The ROC and precision-recall curves, as points to draw."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats, checked


class CurvePoints(NamedTuple):
    """A curve over all thresholds: ROC (x = FPR, y = TPR) or PR (x = recall, y = precision)."""

    x: Floats
    y: Floats


def roc_curve_points(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, max_points: int = 400
) -> CurvePoints:
    """Return the ROC curve, thinned for plotting; empty with one class only."""
    from sklearn.metrics import roc_curve

    labels, probs = checked(y_true, y_prob)
    if not 0 < labels.sum() < len(labels):
        return CurvePoints(np.empty(0), np.empty(0))
    fpr, tpr, _ = roc_curve(labels, probs)
    return _thinned(fpr, tpr, max_points)


def pr_curve_points(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, max_points: int = 400
) -> CurvePoints:
    """Return precision over rising recall, thinned for plotting; empty with one class only.

    The point (0, 1) that scikit-learn adds is left out: no threshold reaches it.
    """
    from sklearn.metrics import precision_recall_curve

    labels, probs = checked(y_true, y_prob)
    if not 0 < labels.sum() < len(labels):
        return CurvePoints(np.empty(0), np.empty(0))
    precision, recall, _ = precision_recall_curve(labels, probs)
    return _thinned(recall[-2::-1], precision[-2::-1], max_points)


def _thinned(x: Floats, y: Floats, max_points: int) -> CurvePoints:
    if len(x) > max_points:
        kept = np.unique(np.linspace(0, len(x) - 1, max_points).round().astype(np.int64))
        x, y = x[kept], y[kept]
    return CurvePoints(x, y)
