"""DeLong's standard error, interval and paired test of the ROC-AUC, in the time of a sort.

Sources: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) for the variance; Sun and Xu, IEEE
Signal Processing Letters 21 (2014) for ranks in place of all pairs. Ties count as half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats, Ints, checked
from ml_core.metrics.interval import UNDEFINED, Interval, logit_interval, normal_quantile


@dataclass(frozen=True)
class DeLongTest:
    """Two models on the same patches: `difference` is `auc_a - auc_b`; NaN where undefined."""

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    interval: Interval
    z: float
    p_value: float


class Placements(NamedTuple):
    """Where each patch stands among those of the other class, ties counted as half.

    `above` (P,): for each positive the share of negatives ranked below it; `below` (N,): for each
    negative the share of positives ranked above it. Both have the ROC-AUC as their mean.
    """

    above: Floats
    below: Floats


def auc_standard_error(y_true: npt.ArrayLike, y_prob: npt.ArrayLike) -> float:
    """Return DeLong's standard error of the ROC-AUC; NaN with fewer than two patches of a class.

    It is 0.0 for constant predictions and for a perfect order.
    """
    return _standard_error(_placements(*checked(y_true, y_prob)))


def delong_interval(y_true: npt.ArrayLike, y_prob: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Return an interval of the ROC-AUC that stays within 0..1; NaN where its error is.

    It is symmetric on the logit scale (Pepe, The Statistical Evaluation of Medical Tests, 2003).
    A perfect order has the standard error 0, which proves nothing: its interval is Newcombe's, see
    `_low_end_of_perfect_order`. Constant predictions have the AUC 0.5 for certain.
    """
    return _interval_of_auc(_placements(*checked(y_true, y_prob)), level)


def delong_test(
    y_true: npt.ArrayLike,
    y_prob_a: npt.ArrayLike,
    y_prob_b: npt.ArrayLike,
    level: float = 0.95,
) -> DeLongTest:
    """Return DeLong's two-sided paired test of equal ROC-AUC, with the interval of the difference.

    Predictions of equal ranks differ by 0 with p = 1. Where all patches agree on a difference, say
    a perfect order against a constant, their variance is 0 and proves nothing: the interval is then
    made from those of the two AUCs (MOVER: Zou and Donner, Statistics in Medicine 27, 2008) and the
    standard error is its length towards 0, in quantiles. With one class all is NaN; with a single
    patch of a class all but the areas and their difference.

    Raises ValueError for arrays that cannot be scored and a level outside 0..1.
    """
    quantile = normal_quantile(level)
    labels, probs_a = checked(y_true, y_prob_a)
    _, probs_b = checked(y_true, y_prob_b)
    a, b = _placements(labels, probs_a), _placements(labels, probs_b)
    auc_a, auc_b = _auc(a), _auc(b)
    difference = auc_a - auc_b
    error = _standard_error(Placements(a.above - b.above, a.below - b.below))
    interval = Interval(difference - quantile * error, difference + quantile * error)
    if error == 0 and difference != 0:
        interval = _difference_of_independent(
            auc_a, _interval_of_auc(a, level), auc_b, _interval_of_auc(b, level)
        )
        nearer_zero = interval.low if difference > 0 else interval.high
        error = abs(difference - nearer_zero) / quantile
    z = 0.0 if difference == 0 and error == 0 else difference / error
    return DeLongTest(
        auc_a=auc_a,
        auc_b=auc_b,
        difference=difference,
        standard_error=error,
        interval=Interval(*(float(end) for end in np.clip(interval, -1, 1))),
        z=z,
        p_value=math.erfc(abs(z) / math.sqrt(2)),
    )


def _placements(labels: Ints, probs: Floats) -> Placements:
    positives = np.sort(probs[labels == 1])
    negatives = np.sort(probs[labels == 0])
    return Placements(
        above=_share_below(negatives, probs[labels == 1]),
        below=1 - _share_below(positives, probs[labels == 0]),
    )


def _share_below(sorted_values: Floats, thresholds: Floats) -> Floats:
    """Return the share of `sorted_values` below each threshold, ties counted as half."""
    left = np.searchsorted(sorted_values, thresholds, side="left")
    right = np.searchsorted(sorted_values, thresholds, side="right")
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: there is nothing to be above
        share: Floats = (left + right) / (2 * len(sorted_values))
    return share


def _auc(placements: Placements) -> float:
    if min(len(side) for side in placements) == 0:
        return float("nan")
    return float(placements.above.mean())


def _standard_error(placements: Placements) -> float:
    if min(len(side) for side in placements) < 2:
        return float("nan")
    # Sorted, so that the order of the patches cannot change the last bit.
    return math.sqrt(sum(np.sort(side).var(ddof=1) / len(side) for side in placements))


def _interval_of_auc(placements: Placements, level: float) -> Interval:
    auc, error = _auc(placements), _standard_error(placements)
    if math.isnan(error):
        return UNDEFINED
    if error > 0:
        return logit_interval(auc, error, level)
    if 0 < auc < 1:
        return Interval(auc, auc)
    low = _low_end_of_perfect_order(len(placements.above), len(placements.below), level)
    return Interval(low, 1.0) if auc == 1 else Interval(0.0, 1 - low)


def _low_end_of_perfect_order(num_positives: int, num_negatives: int, level: float) -> float:
    """Return the smallest AUC that a perfect order of so many patches does not contradict.

    It solves `1 - auc = quantile * se(auc)` with Hanley and McNeil's variance for exponential
    scores, both class sizes in it set to their mean (Newcombe, Statistics in Medicine 25, 2006,
    part 2, method 5).
    """
    quantile = normal_quantile(level)
    num_others = (num_positives + num_negatives) / 2 - 1
    low, high = 0.0, 1.0
    for _ in range(60):  # halves of 1, down to rounding
        auc = (low + high) / 2
        shares = (1 - auc) / (2 - auc) + auc / (1 + auc)
        variance = auc * (1 - auc) * (1 + num_others * shares) / (num_positives * num_negatives)
        if 1 - auc > quantile * math.sqrt(variance):
            low = auc
        else:
            high = auc
    return low


def _difference_of_independent(
    a: float, interval_a: Interval, b: float, interval_b: Interval
) -> Interval:
    """Return MOVER's interval of a - b: too wide, not too narrow, where both rise together."""
    return Interval(
        a - b - math.hypot(a - interval_a.low, interval_b.high - b),
        a - b + math.hypot(interval_a.high - a, b - interval_b.low),
    )
