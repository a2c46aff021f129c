"""The interval of a sum of independent estimates, made of the interval of each."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ml_core.metrics import Interval


def interval_of_sum(
    coefficients: Iterable[float], values: Iterable[float], intervals: Iterable[Interval]
) -> Interval:
    """Return the interval of `sum(coefficients * values)`; NaN where one of them is.

    MOVER: to each side the distances of the estimates to their own ends add up as independent
    errors do (Zou, Huang and Zhang, Computational Statistics & Data Analysis 53, 2009; for two
    proportions it is Newcombe, Statistics in Medicine 17, 1998, method 10). So an estimate of 0 or
    1, whose standard error says nothing, is as unsure as its score interval says.
    """
    total = below = above = 0.0
    for coefficient, value, interval in zip(coefficients, values, intervals, strict=True):
        low, high = sorted(coefficient * end for end in interval)
        total += coefficient * value
        below = math.hypot(below, coefficient * value - low)
        above = math.hypot(above, high - coefficient * value)
    return Interval(total - below, total + above)
