"""The areas under the ROC and the precision-recall curve, with weights on the patches."""

from __future__ import annotations

import numpy as np

from ml_core.metrics.arrays import Floats, Ints, ratio


def weighted_areas(labels: Ints, weights: Floats, tie_ends: Ints) -> tuple[Floats, Floats]:
    """Return ROC-AUC and average precision for each row of `weights` (R, n), each of shape (R,).

    Patches are in order of falling probability and `tie_ends` holds the last position of each run
    of equal ones; a threshold cannot pass between ties, so the curves only have points there. The
    areas are scikit-learn's: trapezoids under ROC, steps under precision-recall. NaN where a row
    gives all its weight to one class.
    """
    positive_at = np.flatnonzero(labels)
    tie = np.searchsorted(tie_ends, positive_at)
    # Only ties that hold a positive raise the curves: half the work on balanced classes.
    last_of_tie = np.flatnonzero(np.append(np.diff(tie) != 0, True)[: len(tie)])
    tie = tie[last_of_tie]
    before, after = np.append(-1, tie_ends)[tie] + 1, tie_ends[tie] + 1

    calls = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=calls[:, 1:])
    tps = np.take(np.cumsum(np.take(weights, positive_at, axis=1), axis=1), last_of_tie, axis=1)
    new_tps = np.diff(tps, axis=1, prepend=0.0)
    positives = new_tps.sum(axis=1)
    negatives = calls[:, -1] - positives

    calls_after = np.take(calls, after, axis=1)
    # Under each rise lie the negatives ranked above it, half of those tied with it. In calls less
    # positives, the positives add up to half a square.
    above_twice = np.einsum("rt,rt->r", new_tps, calls_after)
    above_twice += np.einsum("rt,rt->r", new_tps, np.take(calls, before, axis=1))
    roc_area = positives * negatives - (above_twice - positives**2) / 2
    np.maximum(calls_after, 1, out=calls_after)  # where nothing is called, tps is 0 too
    pr_area = np.einsum("rt,rt->r", new_tps, np.divide(tps, calls_after, out=calls_after))

    roc_auc = ratio(roc_area, positives * negatives)
    pr_auc = np.where(negatives > 0, ratio(pr_area, positives), np.nan)
    return roc_auc, pr_auc


def tie_ends(sorted_probs: Floats) -> Ints:
    """Return the last position of each run of equal values."""
    return np.flatnonzero(np.append(np.diff(sorted_probs) != 0, True))
