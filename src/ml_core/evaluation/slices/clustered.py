"""The interval of every metric where patches come from slides that differ."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.slices.error_counts import Bools
from ml_core.evaluation.slices.few_slides import effective_slides, t_quantile
from ml_core.metrics import HIGHER_IS_BETTER, Interval, compute_intervals, map_resamples
from ml_core.metrics.arrays import Floats, Ints, check_resampling, checked, checked_losses
from ml_core.metrics.resampling import BLOCK_CELLS
from ml_core.metrics.weighted import WeightedMetrics


def clustered_intervals(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    slides: Ints,
    threshold: float = 0.5,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    nll: npt.ArrayLike | None = None,
) -> dict[str, Interval]:
    """Return the interval of every metric of `compute_metrics`; NaN where it is undefined.

    `slides` (N,) says by a number which slide each patch is of. Each resample draws whole slides,
    as many as there are (Davison and Hinkley 1997, section 3.8), and the standard error is that of
    the resampled metric. The interval is symmetric on the logit scale, that of `loss` on the scale
    of logarithms, and reaches as far as Student's t of the effective number of slides behind the
    metric. It is never shorter than that of `compute_intervals`, which takes the patches as drawn
    one by one: where no slide has an error, slides show no spread.

    Measured on 300 tables each of 10 and 30 slides that differ, those of 95 % hold the truth of all
    slides in 96 to 99 % and 93 to 98 %; those of single patches in 42 to 59 % and 33 to 45 %.

    Raises ValueError as `compute_intervals` does.
    """
    check_resampling(num_resamples, level)
    labels, probs = checked(y_true, y_prob)
    losses = checked_losses(labels, probs, nll)
    alone = compute_intervals(labels, probs, threshold, num_resamples, level, seed, nll=losses)
    names, numbers = np.unique(slides, return_inverse=True)
    if len(names) < 2:
        return alone
    order = np.lexsort((losses, numbers, labels, -probs))  # the order of the rows is forgotten
    labels, probs, losses, numbers = labels[order], probs[order], losses[order], numbers[order]
    metrics = WeightedMetrics(labels, probs, losses, threshold)
    values = metrics.compute(np.ones((1, len(labels))))
    resampled = _resampled(metrics, numbers, len(names), num_resamples, seed)
    behind = _slides_behind(labels, probs >= threshold, numbers, len(names))
    intervals = {}
    for name, single in alone.items():
        error = _standard_error(resampled[name])
        interval = _interval(name, float(values[name][0]), error * t_quantile(level, behind[name]))
        intervals[name] = Interval(min(single.low, interval.low), max(single.high, interval.high))
    return intervals


def _resampled(
    metrics: WeightedMetrics, numbers: Ints, num_slides: int, num_resamples: int, seed: int
) -> dict[str, Floats]:
    """Return each metric of each resample, (R,); the patches' weights are made piece by piece."""
    size = max(1, BLOCK_CELLS // len(numbers))

    def measured(times_drawn: Floats) -> list[dict[str, Floats]]:
        return [
            metrics.compute(np.take(times_drawn[first : first + size], numbers, axis=1))
            for first in range(0, len(times_drawn), size)
        ]

    blocks = map_resamples(measured, seed, num_resamples, num_slides)
    pieces = [piece for block in blocks for piece in block]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in HIGHER_IS_BETTER}


def _slides_behind(labels: Ints, called: Bools, numbers: Ints, num_slides: int) -> dict[str, float]:
    """Return the effective number of slides of each metric, by the patches that it is made of."""

    def effective(*masks: Bools) -> float:
        counts = [np.bincount(numbers[mask], minlength=num_slides) for mask in masks if mask.any()]
        return effective_slides(np.array([each / each.sum() for each in counts])) if counts else 1.0

    tumour, normal = labels == 1, labels == 0
    behind = dict.fromkeys(HIGHER_IS_BETTER, effective(tumour | normal))
    behind |= dict.fromkeys(("roc_auc", "pr_auc", "balanced_accuracy"), effective(tumour, normal))
    behind |= dict.fromkeys(("recall", "f1", "f2"), effective(tumour))
    return behind | {"specificity": effective(normal), "precision": effective(called)}


def _standard_error(resampled: Floats) -> float:
    """Return the deviation of the resamples in which the metric is defined; 0 of fewer than two."""
    known = resampled[np.isfinite(resampled)]
    return float(known.std(ddof=1)) if len(known) > 1 else 0.0


def _interval(name: str, value: float, reach: float) -> Interval:
    """Return the interval that `reach` makes on a scale without ends, carried back."""
    if name == "loss" and value > 0:
        factor = math.exp(min(reach / value, 700))  # beyond is infinity
        return Interval(value / factor, value * factor)
    if not 0 < value < 1:  # also NaN
        return Interval(value, value)
    return _logit_interval(value, reach)


def _logit_interval(value: float, reach: float) -> Interval:
    """Return the interval symmetric about `value` on the logit scale; the delta method."""
    centre, reach = math.log(value / (1 - value)), reach / (value * (1 - value))
    low, high = (0.5 * (1 + math.tanh(end / 2)) for end in (centre - reach, centre + reach))
    return Interval(low, high)
