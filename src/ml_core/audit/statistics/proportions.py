"""Intervals of shares: of one, of a difference of two, of a weighted sum of two."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Proportion:
    """`count` of `num`, with the ends of its 95 % interval; share NaN and 0..1 for 0 of 0."""

    count: int
    num: int
    share: float
    low: float
    high: float


def proportion(count: int, num: int) -> Proportion:
    """Return `count` of `num` with its score interval (Wilson, JASA 22, 1927)."""
    if num == 0:
        return Proportion(0, 0, math.nan, 0.0, 1.0)
    share, spread = count / num, _Z**2 / num
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return Proportion(count, num, share, max(0.0, centre - half), min(1.0, centre + half))


def difference(a: Proportion, b: Proportion) -> tuple[float, float, float]:
    """Return a - b and its 95 % interval (Newcombe, Statistics in Medicine 17, 1998, method 10)."""
    value = a.share - b.share
    low = value - math.hypot(a.share - a.low, b.high - b.share)
    high = value + math.hypot(a.high - a.share, b.share - b.low)
    return value, low, high


def weighted_sum(a: Proportion, b: Proportion, weight: float) -> tuple[float, float, float]:
    """Return weight * a + (1 - weight) * b and its 95 % interval.

    From the two intervals (Zou and Donner, Statistics in Medicine 27, 2008).
    """
    value = weight * a.share + (1 - weight) * b.share
    low = math.hypot(weight * (a.share - a.low), (1 - weight) * (b.share - b.low))
    high = math.hypot(weight * (a.high - a.share), (1 - weight) * (b.high - b.share))
    return value, value - low, value + high
