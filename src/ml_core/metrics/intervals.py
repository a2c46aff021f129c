"""The interval of every metric, each by the method that was measured to cover."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.metrics.areas import tie_ends, weighted_areas
from ml_core.metrics.arrays import Floats, Ints, check_resampling, checked, checked_losses
from ml_core.metrics.delong import delong_interval
from ml_core.metrics.interval import UNDEFINED, Interval, logit_interval
from ml_core.metrics.resampling import map_resamples
from ml_core.metrics.score_intervals import (
    balanced_accuracy_interval,
    f_beta_interval,
    wilson_interval,
)
from ml_core.metrics.scores import HIGHER_IS_BETTER, confusion


def compute_intervals(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    threshold: float = 0.5,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    nll: npt.ArrayLike | None = None,
) -> dict[str, Interval]:
    """Return the interval of every metric of `compute_metrics`; NaN where the metric is undefined.

    ================================  =========================================================
    roc_auc                           DeLong's standard error on the logit scale
    accuracy, precision, recall,      Wilson's score interval of a proportion
    specificity
    balanced_accuracy                 from Wilson's of recall and specificity (MOVER)
    f1, f2                            score interval; for F1 it is Wilson's
    pr_auc                            bootstrap standard error on the logit scale
    brier, loss                       studentised bootstrap of a mean
    ================================  =========================================================

    Measured on 1,000 tables each of 100, 300 and 1,000 patches, and of 30 tumours in 300, those of
    95 % hold the truth in 93.2 to 96.6 %. Percentiles of a bootstrap, one method for all, hold it
    in 86 to 91 % near 0 and 1 and for PR-AUC (docs/decisions.md). All methods take the patches as
    drawn one by one. Patches of one slide resemble each other, which none of them knows: from slide
    to slide the spread is wider.

    The resamples depend on (seed, patches) only, neither on the order of the patches nor on a numpy
    release. Raises ValueError as `compute_metrics` does, and for no resample or a level outside
    0..1.
    """
    check_resampling(num_resamples, level)
    labels, probs = checked(y_true, y_prob)
    losses = checked_losses(labels, probs, nll)
    tn, fp, fn, tp = confusion(labels, probs, threshold)
    order = np.lexsort((losses, labels, -probs))  # complete: the order of the rows is forgotten
    resampled = _resampled(labels[order], probs[order], losses[order], num_resamples, level, seed)
    intervals = {
        "roc_auc": delong_interval(labels, probs, level),
        "accuracy": wilson_interval(tp + tn, len(labels), level),
        "balanced_accuracy": balanced_accuracy_interval(tn, fp, fn, tp, level),
        "f1": f_beta_interval(tp, fp, fn, 1, level),
        "f2": f_beta_interval(tp, fp, fn, 2, level),
        "precision": wilson_interval(tp, tp + fp, level),
        "recall": wilson_interval(tp, tp + fn, level),
        "specificity": wilson_interval(tn, tn + fp, level),
        **resampled,
    }
    return {name: intervals[name] for name in HIGHER_IS_BETTER}


def _resampled(
    labels: Ints, probs: Floats, losses: Floats, num_resamples: int, level: float, seed: int
) -> dict[str, Interval]:
    """Return the intervals that need resamples; the patches are ranked by falling probability."""
    ends = tie_ends(probs)
    means = {"brier": (probs - labels) ** 2, "loss": losses}
    deviations = {name: values - values.mean() for name, values in means.items()}

    def measured(weights: Floats) -> dict[str, Floats]:
        studentised = {name: _studentised_means(deviations[name], weights) for name in means}
        return {"pr_auc": weighted_areas(labels, weights, ends)[1], **studentised}

    blocks = map_resamples(measured, seed, num_resamples, len(labels))
    resampled = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    intervals = {"pr_auc": _interval_of_pr_auc(labels, ends, resampled["pr_auc"], level)}
    for name, values in means.items():
        intervals[name] = _interval_of_mean(values, resampled[name], level)
    return intervals


def _interval_of_pr_auc(labels: Ints, ends: Ints, resampled: Floats, level: float) -> Interval:
    """Return the logit interval (Boyd, Eng and Page, ECML 2013); NaN with a patch of a class alone.

    With perfect ranks the resamples do not differ; it is then Wilson's of as many successes as
    there are tumours, the binomial interval of the same authors with ends that cover.
    """
    num_positives = int(labels.sum())
    if min(num_positives, len(labels) - num_positives) < 2:
        return UNDEFINED
    value = float(weighted_areas(labels, np.ones((1, len(labels))), ends)[1][0])
    if value == 1:
        return wilson_interval(num_positives, num_positives, level)
    defined = resampled[np.isfinite(resampled)]
    error = float(defined.std(ddof=1)) if len(defined) > 1 else 0.0
    return logit_interval(value, error, level) if error > 0 else UNDEFINED


def _studentised_means(deviations: Floats, weights: Floats) -> Floats:
    """Return for each row of `weights` (R, n) the mean over its standard deviation, shape (R,)."""
    num_patches = weights.shape[1]
    # Row by row, so that the size of a block cannot change the last bit.
    means = np.einsum("rn,n->r", weights, deviations) / num_patches
    squares = np.einsum("rn,n->r", weights, deviations**2) / num_patches
    variances = squares - means**2
    known = variances > 1e-12 * (deviations**2).mean()  # below is rounding: one patch drawn n times
    studentised: Floats = np.full(len(means), np.nan)
    studentised[known] = means[known] / np.sqrt(variances[known])
    return studentised


def _interval_of_mean(values: Floats, studentised: Floats, level: float) -> Interval:
    """Return the bootstrap-t interval of a mean that is at least 0; NaN for fewer than 3 patches.

    Efron and Tibshirani 1993, section 12.5: squared errors and losses have a long tail, and large
    resampled means come with large deviations, which percentiles of the mean alone do not know.
    """
    mean, deviation = float(values.mean()), float(values.std())
    known = studentised[np.isfinite(studentised)]
    if np.ptp(values) == 0 and len(values) >= 3:
        return Interval(mean, mean)
    if len(values) < 3 or len(known) == 0:
        return UNDEFINED
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(max(0.0, float(mean - high * deviation)), float(mean - low * deviation))
