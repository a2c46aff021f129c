"""One metric over the runs of a group: mean, spread, and how sure the mean is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NAN = float("nan")


@dataclass(frozen=True)
class Spread:
    """A metric over `n` runs in which it is defined; NaN where there is no such number.

    `low` to `high` is the interval of the mean over seeds: what other seeds would give on average,
    on the same patches. One run has no `sd` and no interval.
    """

    n: int
    mean: float
    sd: float  # n - 1
    low: float
    high: float
    min: float
    max: float


def compute_spread(
    values: Sequence[float | None], highest: float = 1.0, level: float = 0.95
) -> Spread:
    """Return the spread of `values`; those that are undefined, None or NaN, are left out.

    The interval is Student's, mean ± t(n - 1) sd / sqrt(n) (Student, Biometrika 6, 1908), for
    seeds drawn at random. It is cut at 0 and `highest`, where the metric's scale ends: no mean can
    lie beyond.
    """
    from scipy.special import stdtrit

    known = np.array([value for value in values if value is not None and not math.isnan(value)])
    n = len(known)
    if n == 0:
        return Spread(0, NAN, NAN, NAN, NAN, NAN, NAN)
    mean, ends = float(known.mean()), (float(known.min()), float(known.max()))
    if n == 1:
        return Spread(1, mean, NAN, NAN, NAN, *ends)
    sd = float(known.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    return Spread(n, mean, sd, max(0.0, mean - half), min(highest, mean + half), *ends)


def spreads_of(all_scores: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Return the spread of every metric of several metrics.json, in the order of the first."""
    names = dict.fromkeys(name for scores in all_scores for name in scores["metrics"])
    return {
        name: compute_spread(
            [(scores["metrics"].get(name) or {}).get("value") for scores in all_scores],
            highest=highest_value(name),
        )
        for name in names
    }


def highest_value(metric: str) -> float:
    """Return where the scale of a metric ends: all but the loss end at 1."""
    return math.inf if metric == "loss" else 1.0
