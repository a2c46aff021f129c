"""Score intervals of what follows from counts of calls: proportions, their mean, and F-beta.

A score interval holds every value that the counts do not contradict, each judged with the variance
it would have itself. So it never leaves 0..1 and never shrinks to a point: 20 of 20 tumours found
is a recall of 0.84 to 1, where resampling those 20 says 1 to 1.
"""

from __future__ import annotations

import math

import numpy as np

from ml_core.metrics.arrays import Floats
from ml_core.metrics.interval import UNDEFINED, Interval, normal_quantile


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval of a proportion; NaN without trials.

    Wilson, JASA 22 (1927); for its coverage against others Brown, Cai and DasGupta, Statistical
    Science 16 (2001).
    """
    if trials == 0:
        return UNDEFINED
    squared = normal_quantile(level) ** 2
    share = successes / trials
    centre = (share + squared / (2 * trials)) / (1 + squared / trials)
    reach = math.sqrt(squared * (share * (1 - share) + squared / (4 * trials)) / trials)
    reach /= 1 + squared / trials
    # With no success, or nothing but, one end is the share itself; rounding must not move it.
    low = 0.0 if successes == 0 else centre - reach
    return Interval(low, 1.0 if successes == trials else centre + reach)


def balanced_accuracy_interval(tn: int, fp: int, fn: int, tp: int, level: float = 0.95) -> Interval:
    """Return the interval of the mean of recall and specificity; NaN with one class only.

    Two independent proportions, joined by their distances to Wilson's ends: MOVER (Newcombe,
    Statistics in Medicine 17, 1998, method 10; Zou and Donner, Statistics in Medicine 27, 2008).
    """
    if tp + fn == 0 or tn + fp == 0:
        return UNDEFINED
    recall, specificity = tp / (tp + fn), tn / (tn + fp)
    ends_of_recall = wilson_interval(tp, tp + fn, level)
    ends_of_specificity = wilson_interval(tn, tn + fp, level)
    below = math.hypot(recall - ends_of_recall.low, specificity - ends_of_specificity.low)
    above = math.hypot(ends_of_recall.high - recall, ends_of_specificity.high - specificity)
    centre = (recall + specificity) / 2
    return Interval(centre - below / 2, centre + above / 2)


def f_beta_interval(tp: int, fp: int, fn: int, beta: float, level: float = 0.95) -> Interval:
    """Return the score interval of F-beta; NaN where there is neither a tumour nor a call.

    F-beta is the f at which what hits gain is what errors cost: (1 + beta^2)(1 - f) TP =
    f FP + beta^2 f FN. The interval holds each f for which the difference is within the quantile
    of its standard error under the likeliest shares of TP, FP and FN that meet the equation (Rao's
    score test; Tango, Statistics in Medicine 17, 1998, does so for paired proportions). With beta 1
    it is Wilson's interval of TP / (TP + FP + FN), carried over to F1 (Lam, Gopal and Qian, arXiv
    2309.14621, 2023).
    """
    from scipy.optimize import brentq

    if tp + fp + fn == 0:
        return UNDEFINED
    counts, quantile = np.array([tp, fp, fn], dtype=np.float64), normal_quantile(level)
    weight = 1 + beta**2
    value = weight * tp / (weight * tp + fp + beta**2 * fn)

    def excess(f: float) -> float:
        gains = np.array([weight * (1 - f), -f, -(beta**2) * f])
        shares = _likeliest_shares(counts, gains)
        return float((gains @ counts) ** 2 - quantile**2 * counts.sum() * (gains**2 @ shares))

    nearly_0, nearly_1 = 1e-12, 1 - 1e-12  # at 0 and 1 themselves no share is free
    low = brentq(excess, nearly_0, min(value, nearly_1)) if tp > 0 else 0.0
    high = brentq(excess, max(value, nearly_0), nearly_1) if fp + fn > 0 else 1.0
    return Interval(float(low), float(high))


def _likeliest_shares(counts: Floats, gains: Floats) -> Floats:
    """Return the shares (3,) under which `counts` are likeliest among those with no mean gain.

    They are counts / (n (1 + tilt gains)) with the tilt that makes the mean gain 0 (a Lagrange
    multiplier). Where no tilt does, the cell that the largest tilt empties of its denominator, one
    that was never seen, takes what is left.
    """
    from scipy.optimize import brentq

    num = counts.sum()
    emptied = int(np.argmin(gains)) if gains @ counts > 0 else int(np.argmax(gains))
    largest_tilt = -(1 - 1e-12) / gains[emptied]

    def mean_gain(tilt: float) -> float:
        return float(gains @ (counts / (1 + tilt * gains)))

    tilt = largest_tilt
    if mean_gain(0) * mean_gain(largest_tilt) <= 0:
        tilt = brentq(mean_gain, *sorted((0, largest_tilt)))
    shares: Floats = counts / (num * (1 + tilt * gains))
    shares[emptied] += 1 - shares.sum()
    return shares
