"""How far one set of values lies above another, by ranks: an AUC with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.floating]

_Z_95 = 1.959964  # the normal quantile of a two-sided 95 % interval


class RankEffect(NamedTuple):
    """The chance that a value of the second set is above one of the first, ties counted as half.

    0.5 is no difference; `low` and `high` are its 95 % interval. All are NaN where a set is empty.
    """

    auc: float
    low: float
    high: float
    p_value: float  # two-sided, of both sets being draws from one distribution

    def __str__(self) -> str:
        return f"{self.auc:.3f}, 95% interval {self.low:.3f} to {self.high:.3f}"

    @property
    def delta(self) -> float:
        """Cliff's delta, -1..1: the chance of above minus that of below (Cliff 1993)."""
        return 2 * self.auc - 1

    @property
    def strength(self) -> float:
        """The AUC of the better direction, 0.5..1."""
        return max(self.auc, 1 - self.auc)

    @property
    def sure_strength(self) -> float:
        """The strength that the interval still grants: its end nearer to 0.5, not below 0.5."""
        return max(0.5, self.low, 1 - self.high)


def compare_sorted(first: Floats, second: Floats) -> RankEffect:
    """Return the effect between two sorted sets of finite values.

    The interval is DeLong's (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988); the p-value
    is that of the Mann-Whitney test without the correction for ties, which errs on the side of no
    difference. Both take values as independent, which patches of one slide are not: with many
    patches every p-value is small, and it is the effect that has to be looked at.
    """
    if len(first) == 0 or len(second) == 0:
        return RankEffect(math.nan, math.nan, math.nan, math.nan)
    below = _share_below(first, second)  # per value of second
    auc = float(below.mean())
    above = 1 - _share_below(second, first)  # per value of first
    half = _Z_95 * math.sqrt(_variance_of_mean(below) + _variance_of_mean(above))
    num_first, num_second = len(first), len(second)
    null_error = math.sqrt((num_first + num_second + 1) / (12 * num_first * num_second))
    p_value = float(2 * ndtr(-abs(auc - 0.5) / null_error))
    return RankEffect(auc, max(0.0, auc - half), min(1.0, auc + half), p_value)


def compare_groups(values: Floats, in_second: npt.NDArray[np.bool_]) -> RankEffect:
    """Return the effect from values outside a group to those in it; NaN and Inf are left out."""
    known = np.isfinite(values)
    return compare_sorted(np.sort(values[known & ~in_second]), np.sort(values[known & in_second]))


def _variance_of_mean(values: npt.NDArray[np.float64]) -> float:
    """Return 0.25, the most that it can be, for one value: nothing is known of its spread."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.25


def _share_below(sorted_values: Floats, queries: Floats) -> npt.NDArray[np.float64]:
    left = np.searchsorted(sorted_values, queries, side="left")
    right = np.searchsorted(sorted_values, queries, side="right")
    share: npt.NDArray[np.float64] = (left + right) / (2 * len(sorted_values))
    return share
