"""Two models on the same patches: the difference of every metric, and whether it can be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import (
    Floats,
    check_resampling,
    check_threshold,
    checked,
    checked_losses,
)
from ml_core.metrics.resampling import map_resamples
from ml_core.metrics.scores import HIGHER_IS_BETTER
from ml_core.metrics.weighted import WeightedMetrics


@dataclass(frozen=True)
class PairedDifference:
    """`difference` is `value_a - value_b`; it and what follows are NaN where one of them is."""

    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    y_true: npt.ArrayLike,
    y_prob_a: npt.ArrayLike,
    y_prob_b: npt.ArrayLike,
    thresholds: tuple[float, float] = (0.5, 0.5),
    metrics: Sequence[str] = tuple(HIGHER_IS_BETTER),
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    nll_a: npt.ArrayLike | None = None,
    nll_b: npt.ArrayLike | None = None,
) -> dict[str, PairedDifference]:
    """Return the difference of each of `metrics` between two models, each at its own threshold.

    Both are scored on the same resamples, so what makes a patch hard for both cancels. The interval
    reaches equally far to both sides, as far as `level` of the resampled differences lie from the
    one measured (Hall, JRSS B 50, 1988). The two-sided p_value is the share that lie as far from it
    as 0 does, with one added to both counts so that it is never 0 (Davison and Hinkley 1997,
    section 4.4): the interval leaves out 0 where p_value is at most 1 - level. Resamples in which a
    metric is undefined for one of the two are left out of it. Predictions that score alike in every
    resample differ by 0 with p = 1, which on few patches is no proof that they are alike.

    Measured on 1,000 tables each, the interval of 95 % holds the true difference of every metric in
    93.9 to 96.0 % for 1,000 patches, half of them tumour; in 93.8 to 95.5 % for 300, but for PR-AUC
    in 92.6 %; with 30 tumours among 300 in 92.6 % (recall, F2) to 95.1 %. Percentiles hold it less
    where few patches decide: in 91.3 % for the specificity of 0.98 of the last.

    The resamples depend on (seed, patches), not on the order of the patches. Raises ValueError as
    `compute_metrics` and `compute_intervals` do, and for a metric that does not exist.
    """
    check_resampling(num_resamples, level)
    _check_names(metrics)
    for threshold in thresholds:
        check_threshold(threshold)
    labels, probs_a = checked(y_true, y_prob_a)
    _, probs_b = checked(y_true, y_prob_b)
    losses_a = checked_losses(labels, probs_a, nll_a)
    losses_b = checked_losses(labels, probs_b, nll_b)
    # complete: the order of the rows is forgotten
    order = np.lexsort((losses_b, losses_a, labels, -probs_b, -probs_a))
    labels = labels[order]
    a = WeightedMetrics(labels, probs_a[order], losses_a[order], thresholds[0])
    b = WeightedMetrics(labels, probs_b[order], losses_b[order], thresholds[1])

    def differences(weights: Floats) -> dict[str, Floats]:
        in_a, in_b = a.compute(weights, metrics), b.compute(weights, metrics)
        return {name: in_a[name] - in_b[name] for name in metrics}

    blocks = map_resamples(differences, seed, num_resamples, len(labels))
    once = np.ones((1, len(labels)))
    values_a, values_b = a.compute(once, metrics), b.compute(once, metrics)
    return {
        name: _summarised(
            float(values_a[name][0]),
            float(values_b[name][0]),
            np.concatenate([block[name] for block in blocks]),
            level,
        )
        for name in metrics
    }


def _summarised(
    value_a: float, value_b: float, resampled: Floats, level: float
) -> PairedDifference:
    difference, resampled = value_a - value_b, resampled[np.isfinite(resampled)]
    low = high = p_value = float("nan")
    if np.isfinite(difference) and len(resampled):
        distances = np.abs(resampled - difference)
        reach = float(np.quantile(distances, level, method="higher"))  # a distance that occurred
        # Decisions differ by whole patches: rounding must not put an end to the other side of 0.
        low, high = round(difference - reach, 12), round(difference + reach, 12)
        as_far_as_zero = int((distances > abs(difference) - 1e-12).sum())
        p_value = (as_far_as_zero + 1) / (len(resampled) + 1)
    return PairedDifference(value_a, value_b, difference, low, high, p_value)


def _check_names(metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in HIGHER_IS_BETTER]
    if unknown:
        raise ValueError(
            f"unknown metric {unknown[0]!r}; there are: {', '.join(HIGHER_IS_BETTER)}."
        )
