"""What a model scores on one slice, beside the rest of the split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ml_core.evaluation.predictions import null_if_nan
from ml_core.evaluation.slices.differences import Difference
from ml_core.evaluation.slices.slice import Slice
from ml_core.metrics import Interval

Standing = Literal["worse", "better", "not told apart", "not scored"]
STANDINGS: tuple[Standing, ...] = ("worse", "not told apart", "better", "not scored")


class Score(NamedTuple):
    """A metric with its interval; NaN where it is undefined."""

    value: float
    interval: Interval

    def to_dict(self) -> dict[str, float | None]:
        """Return what JSON can hold."""
        return {
            "value": null_if_nan(self.value),
            "low": null_if_nan(self.interval.low),
            "high": null_if_nan(self.interval.high),
        }


@dataclass(frozen=True)
class SliceScore:
    """One row of the slice table.

    `too_small` says why there are neither metrics nor differences, and is "" where there are;
    `note` says what else a reader must know of the figures. `num_slides` is None where the slides
    are not known; `clustered` says whether intervals and tests are over slides. `examples` are rows
    in the source file: wrong calls first, then the rest, each with the largest loss first.
    """

    slice: Slice
    n: int
    positives: int
    num_slides: int | None
    clustered: bool = False
    too_small: str = ""
    note: str = ""
    metrics: Mapping[str, Score] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    standing: Standing = "not scored"
    examples: tuple[int, ...] = ()

    def difference(self, kind: str) -> Difference:
        """Return the difference of one of KINDS, of NaN where none was made."""
        return self.differences.get(kind, Difference())

    def to_dict(self) -> dict[str, Any]:
        """Return the row as it is in slices.json, without the mask."""
        return {
            "name": self.slice.name,
            "group": self.slice.group,
            "kind": self.slice.kind,
            "where": self.slice.where,
            "said": self.slice.said,
            "n": self.n,
            "positives": self.positives,
            "prevalence": self.positives / self.n if self.n else None,
            "num_slides": self.num_slides,
            "clustered_by": "slide" if self.clustered else None,
            "too_small": self.too_small,
            "note": self.note,
            "metrics": {name: score.to_dict() for name, score in self.metrics.items()},
            "differences": {
                kind: {
                    **Score(each.value, each.interval).to_dict(),
                    "p": null_if_nan(each.p),
                    "q": null_if_nan(each.q),
                }
                for kind, each in self.differences.items()
            },
            "standing": self.standing,
            "examples": list(self.examples),
        }
