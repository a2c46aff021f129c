"""From labels and probabilities to numbers: metrics, their intervals, curves and baselines.

Everything is computed over patches, never averaged over batches, and is NaN where it is undefined:
a score of 0.0 in a table is always a score that was reached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from ml_core.reproducibility import Stream, philox_words

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Sums = Floats | np.float64

SAMPLE_FACTS = ("n", "positives", "prevalence")  # of the patches; the rest depends on the model
HIGHER_IS_BETTER = {
    "roc_auc": True,
    "pr_auc": True,
    "accuracy": True,
    "balanced_accuracy": True,
    "f1": True,
    "f2": True,
    "precision": True,
    "recall": True,
    "specificity": True,
    "brier": False,
    "loss": False,
}

_SMALLEST_PROB = float(np.finfo(np.float64).tiny)  # keeps log() finite where only y_prob is known
_BLOCK_CELLS = 2**19  # resamples x patches held at once: about 4 MB for each array of weights


class Interval(NamedTuple):
    """The two ends of an interval; both NaN where the metric is undefined."""

    low: float
    high: float


class Confusion(NamedTuple):
    """Patches by truth and decision; positive means tumour."""

    tn: int
    fp: int
    fn: int
    tp: int


class CurvePoints(NamedTuple):
    """A curve over all thresholds: ROC (x = FPR, y = TPR) or PR (x = recall, y = precision)."""

    x: Floats
    y: Floats


def compute_metrics(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    threshold: float = 0.5,
    nll: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Return every metric of one set of patches by name.

    A patch is called positive where ``y_prob >= threshold``. `nll` is the loss of each patch, when
    it is known more exactly than y_prob can tell (a saturated sigmoid); `loss` is its mean.

    NaN: precision without a positive call; recall, specificity without a patch of their class;
    balanced accuracy, ROC-AUC and PR-AUC with one class only; F1 and F2 with neither a positive
    patch nor a positive call. F1 is 0.0, as counted, when there are tumours and none is found.

    Raises ValueError for empty or unequal arrays, labels outside {0, 1}, and probabilities that
    are NaN or outside 0..1.
    """
    labels, probs = _checked(y_true, y_prob)
    losses = _losses(labels, probs, nll)
    two_classes = 0 < labels.sum() < len(labels)
    tn, fp, fn, tp = confusion(labels, probs, threshold)
    metrics = _metrics_from_sums(
        tn=np.float64(tn),
        fp=np.float64(fp),
        fn=np.float64(fn),
        tp=np.float64(tp),
        loss=losses.sum(),
        squared_error=((probs - labels) ** 2).sum(),
    )
    return {
        "n": float(len(labels)),
        "positives": float(labels.sum()),
        "prevalence": float(labels.mean()),
        **{name: float(value) for name, value in metrics.items()},
        "roc_auc": float(roc_auc_score(labels, probs)) if two_classes else float("nan"),
        "pr_auc": float(average_precision_score(labels, probs)) if two_classes else float("nan"),
    }


def bootstrap_intervals(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    threshold: float = 0.5,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    nll: npt.ArrayLike | None = None,
) -> dict[str, Interval]:
    """Return the percentile bootstrap interval of every metric, resampling patches.

    Each resample draws n of the n patches with replacement (Efron and Tibshirani 1993, chapter 13),
    from words that depend on (seed, resample) only, so neither the order of the patches nor a numpy
    release can change it. Resamples in which a metric is undefined are left out of its percentiles.
    Patches of one slide resemble each other, which this does not know: from slide to slide the
    spread is wider.
    """
    if num_resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"num_resamples is {num_resamples} and level is {level}; "
            "allowed are at least 1 resample and a level between 0 and 1."
        )
    labels, probs = _checked(y_true, y_prob)
    losses = _losses(labels, probs, nll)
    order = np.lexsort((losses, labels, -probs))  # complete: the order of the rows is forgotten
    labels, probs, losses = labels[order], probs[order], losses[order]
    ends = _tie_ends(probs)
    positive, called = labels == 1, probs >= threshold
    columns = {
        "tn": ~positive & ~called,
        "fp": ~positive & called,
        "fn": positive & ~called,
        "tp": positive & called,
        "loss": losses,
        "squared_error": (probs - labels) ** 2,
    }
    per_patch = np.stack([column.astype(np.float64) for column in columns.values()], axis=1)

    samples: dict[str, list[Floats]] = {name: [] for name in HIGHER_IS_BETTER}
    block = max(1, _BLOCK_CELLS // len(labels))
    for first in range(0, num_resamples, block):
        resamples = range(first, min(first + block, num_resamples))
        weights = _resample_weights(seed, resamples, len(labels))  # (resamples, n)
        sums = dict(zip(columns, (weights @ per_patch).T, strict=True))
        metrics = _metrics_from_sums(**sums)
        metrics["roc_auc"], metrics["pr_auc"] = weighted_areas(labels, weights, ends)
        for name, values in metrics.items():
            samples[name].append(values)

    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name, blocks in samples.items():
        values = np.concatenate(blocks)
        values = values[np.isfinite(values)]
        low, high = np.quantile(values, tails) if len(values) else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high))
    return intervals


def weighted_areas(labels: Ints, weights: Floats, tie_ends: Ints) -> tuple[Floats, Floats]:
    """Return ROC-AUC and average precision for each row of `weights` (R, n), each of shape (R,).

    Patches are in order of falling probability and `tie_ends` holds the last position of each run
    of equal ones; a threshold cannot pass between ties, so the curves only have points there. The
    areas are scikit-learn's: trapezoids under ROC, steps under precision-recall.
    """
    tps = np.cumsum(weights * labels, axis=1)[:, tie_ends]
    calls = np.cumsum(weights, axis=1)[:, tie_ends]
    fps = calls - tps
    new_tps = np.diff(tps, axis=1, prepend=0.0)
    new_fps = np.diff(fps, axis=1, prepend=0.0)
    precision = np.divide(tps, calls, out=np.zeros_like(tps), where=calls > 0)
    positives, negatives = tps[:, -1], fps[:, -1]
    roc_area = np.einsum("rg,rg->r", new_fps, tps - new_tps / 2)
    pr_area = np.einsum("rg,rg->r", new_tps, precision)
    roc_auc = _ratio(roc_area, positives * negatives)
    pr_auc = np.where(negatives > 0, _ratio(pr_area, positives), np.nan)
    return roc_auc, pr_auc


def auc_standard_error(y_true: npt.ArrayLike, y_prob: npt.ArrayLike) -> float:
    """Return DeLong's standard error of the ROC-AUC; NaN with fewer than two patches of a class.

    Closed form, in the time of a sort, ties counted as half (DeLong, DeLong and Clarke-Pearson,
    Biometrics 44, 1988). It is 0.0 for constant predictions and for a perfect order.
    """
    labels, probs = _checked(y_true, y_prob)
    positives = np.sort(probs[labels == 1])
    negatives = np.sort(probs[labels == 0])
    if len(positives) < 2 or len(negatives) < 2:
        return float("nan")
    above = _share_below(negatives, positives)  # per positive: share of negatives ranked below it
    below = 1 - _share_below(positives, negatives)
    variance = above.var(ddof=1) / len(positives) + below.var(ddof=1) / len(negatives)
    return float(np.sqrt(variance))


def confusion(y_true: npt.ArrayLike, y_prob: npt.ArrayLike, threshold: float = 0.5) -> Confusion:
    """Return the counts of true and false, negative and positive calls at `threshold`."""
    labels, probs = _checked(y_true, y_prob)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; allowed are numbers from 0 to 1.")
    cells = np.bincount(2 * labels + (probs >= threshold), minlength=4)
    return Confusion(*(int(count) for count in cells))


def roc_curve_points(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, max_points: int = 400
) -> CurvePoints:
    """Return the ROC curve, thinned for plotting; empty with one class only."""
    labels, probs = _checked(y_true, y_prob)
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
    labels, probs = _checked(y_true, y_prob)
    if not 0 < labels.sum() < len(labels):
        return CurvePoints(np.empty(0), np.empty(0))
    precision, recall, _ = precision_recall_curve(labels, probs)
    return _thinned(recall[-2::-1], precision[-2::-1], max_points)


def baseline_metrics(y_true: npt.ArrayLike, threshold: float = 0.5) -> dict[str, dict[str, float]]:
    """Return what needs no model: always positive, always negative, and the share of positives.

    The first two are decisions without a probability, so they have no loss (NaN). `prior` gives
    every patch the prevalence of these very patches, which a model has to find out.
    """
    labels = np.asarray(y_true)
    num_patches = len(labels)
    baselines = {
        "always_positive": compute_metrics(labels, np.ones(num_patches), threshold),
        "always_negative": compute_metrics(labels, np.zeros(num_patches), threshold),
        "prior": compute_metrics(labels, np.full(num_patches, labels.mean()), threshold),
    }
    baselines["always_positive"]["loss"] = float("nan")
    baselines["always_negative"]["loss"] = float("nan")
    return baselines


def _metrics_from_sums(
    tn: Sums, fp: Sums, fn: Sums, tp: Sums, loss: Sums, squared_error: Sums
) -> dict[str, Floats]:
    """Return the metrics that follow from sums over patches, elementwise; one formula for all."""
    n = tn + fp + fn + tp
    recall = _ratio(tp, tp + fn)
    specificity = _ratio(tn, tn + fp)
    return {
        "loss": _ratio(loss, n),
        "accuracy": _ratio(tn + tp, n),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "f2": _ratio(5 * tp, 5 * tp + fp + 4 * fn),
        "brier": _ratio(squared_error, n),
    }


def _ratio(numerator: Sums, denominator: Sums) -> Floats:
    """Return the quotient, NaN where the denominator is 0."""
    quotient: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator > 0))
    return quotient


def _resample_weights(seed: int, resamples: range, num_patches: int) -> Floats:
    """Return how often each resample draws each patch, shape (len(resamples), num_patches)."""
    weights = np.empty((len(resamples), num_patches))
    for row, resample in enumerate(resamples):
        words = philox_words(seed, resample, Stream.BOOTSTRAP, -(-num_patches // 8)).ravel()
        halves = np.concatenate([words >> np.uint64(32), words & np.uint64(2**32 - 1)])
        # Multiply and shift instead of modulo: one patch is favoured by less than n / 2**32.
        drawn = (halves[:num_patches] * np.uint64(num_patches)) >> np.uint64(32)
        weights[row] = np.bincount(drawn.astype(np.int64), minlength=num_patches)
    return weights


def _tie_ends(sorted_probs: Floats) -> Ints:
    return np.flatnonzero(np.append(np.diff(sorted_probs) != 0, True))


def _share_below(sorted_values: Floats, thresholds: Floats) -> Floats:
    """Return the share of `sorted_values` below each threshold, ties counted as half."""
    left = np.searchsorted(sorted_values, thresholds, side="left")
    right = np.searchsorted(sorted_values, thresholds, side="right")
    share: Floats = (left + right) / (2 * len(sorted_values))
    return share


def _thinned(x: Floats, y: Floats, max_points: int) -> CurvePoints:
    if len(x) > max_points:
        kept = np.unique(np.linspace(0, len(x) - 1, max_points).round().astype(np.int64))
        x, y = x[kept], y[kept]
    return CurvePoints(x, y)


def _losses(labels: Ints, probs: Floats, nll: npt.ArrayLike | None) -> Floats:
    if nll is None:
        prob_of_truth = np.where(labels == 1, probs, 1 - probs)
        return -np.log(np.maximum(prob_of_truth, _SMALLEST_PROB))
    losses = np.asarray(nll, dtype=np.float64)
    if losses.shape != labels.shape or not np.isfinite(losses).all():
        raise ValueError(
            f"nll has shape {losses.shape} and {int((~np.isfinite(losses)).sum())} values that "
            f"are not finite; needed is one finite loss for each of the {len(labels)} patches."
        )
    return losses


def _checked(y_true: npt.ArrayLike, y_prob: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Return the two as 1-d int64 and float64; raises ValueError where they are no such thing."""
    labels, probs = np.asarray(y_true), np.asarray(y_prob, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probs.shape or len(labels) == 0:
        raise ValueError(
            f"y_true has shape {labels.shape} and y_prob {probs.shape}; "
            "needed are two 1-d arrays of one length, with at least one patch."
        )
    if not np.isin(labels, (0, 1)).all():
        wrong = labels[~np.isin(labels, (0, 1))][0]
        raise ValueError(f"y_true holds {wrong}; allowed are 0 (normal) and 1 (tumour).")
    outside = ~((probs >= 0) & (probs <= 1))  # also true for NaN
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"y_prob holds {int(outside.sum())} of {len(probs)} values that are NaN or outside "
            f"0..1, the first at position {first}: {probs[first]}. Needed are probabilities."
        )
    return labels.astype(np.int64), probs
