"""The ratio of two rates that were measured in turns, with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_ROUNDS = 3  # an interval of two rounds is as wide as the world
LEVEL = 0.95


@dataclass(frozen=True)
class PairedRatio:
    """How many times as fast a is as b, over `num` rounds, with the ends of a 95 % interval."""

    ratio: float
    low: float
    high: float
    num: int

    @property
    def is_difference(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1 <= self.high


def paired_ratio(a: Sequence[float], b: Sequence[float]) -> PairedRatio:
    """Return the ratio of rates `a` and `b`, of which the i-th of both met the same noise.

    The mean of the rounds' log-ratios with Student's t interval, on the scale of ratios: what
    disturbs both of a round cancels out. Raises ValueError for fewer than three rounds.
    """
    from scipy.stats import t

    if len(a) < FEWEST_ROUNDS:
        raise ValueError(f"{len(a)} rounds tell nothing of the spread; {FEWEST_ROUNDS} at least")
    logs = [math.log(each / other) for each, other in zip(a, b, strict=True)]
    mean, error = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    reach = float(t.ppf((1 + LEVEL) / 2, len(logs) - 1)) * error
    low, middle, high = (math.exp(each) for each in (mean - reach, mean, mean + reach))
    return PairedRatio(middle, low, high, len(logs))
