"""Scores by the strength of a corruption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ml_core.evaluation.predictions import null_if_nan
from ml_core.evaluation.robustness.score import Score


@dataclass(frozen=True)
class Point:
    """The scores at one strength.

    metrics               roc_auc, recall, specificity and accuracy
    difference            of these, from the same patches untouched
    calls_changed         share of patches called otherwise than untouched
    fact_median           of the moved fact among the changed patches; NaN where none is moved or
                          it is unknown
    share_in_train_range  of the changed patches, by that fact; NaN likewise
    in_train_range        whether the median is; True for a corruption that moves no fact, None
                          where the fact or the range is unknown, the range a single value, or the
                          median that of untouched patches: then the fact does not tell the change
    """

    strength: float
    label: str
    metrics: dict[str, Score]
    difference: dict[str, Score]
    calls_changed: float
    fact_median: float
    share_in_train_range: float
    in_train_range: bool | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "label": self.label,
            "metrics": {name: score.to_dict() for name, score in self.metrics.items()},
            "difference": {name: score.to_dict() for name, score in self.difference.items()},
            "calls_changed": self.calls_changed,
            "fact_median": null_if_nan(self.fact_median),
            "share_in_train_range": null_if_nan(self.share_in_train_range),
            "in_train_range": self.in_train_range,
        }


@dataclass(frozen=True)
class Curve:
    """The points of one corruption, in the order of its strengths: untouched first."""

    name: str
    unit: str
    expect: str
    fact: str | None
    train_range: tuple[float, float] | None
    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "expect": self.expect,
            "fact": self.fact,
            "train_range": None if self.train_range is None else list(self.train_range),
            "points": [point.to_dict() for point in self.points],
        }


class Fall(NamedTuple):
    """A point of a curve, and by how much a metric differs there from untouched."""

    curve: Curve
    point: Point
    metric: str

    @property
    def difference(self) -> Score:
        return self.point.difference[self.metric]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.curve.name,
            "strength": self.point.strength,
            "label": self.point.label,
            "metric": self.metric,
            "difference": self.difference.to_dict(),
        }
