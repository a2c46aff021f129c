"""One number with its interval."""

from __future__ import annotations

from typing import NamedTuple

from ml_core.evaluation.json_score import JSONScore, score_dict
from ml_core.metrics import Interval


class Score(NamedTuple):
    """A value and the ends of its interval; NaN where undefined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, interval: Interval) -> Score:
        return cls(value, interval.low, interval.high)

    def to_dict(self) -> JSONScore:
        """Return {"value", "low", "high"}, None where undefined."""
        return score_dict(self.value, Interval(self.low, self.high))
