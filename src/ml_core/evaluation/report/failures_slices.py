"""The slices of slices.json as one part of the page: the worst, all, too small, and found."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.report.slice_table import (
    FoundSlice,
    Score,
    SliceRow,
    found_slices,
    largest_reach,
    slice_rows,
)

NUM_CARDS = 3  # of the worst slices, with pictures
PER_CARD = 8
PER_SLICE = 12
PER_FOUND = 8


@dataclass(frozen=True)
class SlicesPart:
    """What the page shows of slices.json; `reach` is how far its strips go to both sides."""

    n: int
    threshold: float
    calibration: str
    by_champion: bool
    level: float
    num_resamples: int
    rate: float
    clustered_by: str | None
    num_tested: int
    num_worse: int
    overall_error: Score
    rows: Sequence[SliceRow]
    found: Sequence[FoundSlice]
    num_tried: int | None
    num_suggested: int | None
    notes: Sequence[str]
    reach: float

    @property
    def scored(self) -> list[SliceRow]:
        return [row for row in self.rows if not row.too_small]

    @property
    def too_small(self) -> list[SliceRow]:
        return [row for row in self.rows if row.too_small]

    @property
    def worst(self) -> list[SliceRow]:
        """The slices that have a card."""
        return [row for row in self.rows if row.standing == "worse"][:NUM_CARDS]

    @property
    def confirmed(self) -> list[FoundSlice]:
        return [each for each in self.found if each.is_confirmed]

    @property
    def not_confirmed(self) -> list[FoundSlice]:
        return [each for each in self.found if not each.is_confirmed]

    @property
    def wanted_first(self) -> list[int]:
        """The patches that must have a picture: those of cards and of confirmed slices."""
        cards = [row.examples[:PER_CARD] for row in self.worst]
        found = [each.examples[:PER_FOUND] for each in self.confirmed]
        return [index for examples in (*cards, *found) for index in examples]

    @property
    def wanted_then(self) -> list[int]:
        """The others by turns, so that each slice has some before one has many."""
        turns = itertools.zip_longest(*(row.examples[:PER_SLICE] for row in self.scored))
        return [index for turn in turns for index in turn if index is not None]


def build_slices_part(content: Mapping[str, Any]) -> SlicesPart:
    """Return the rows and what they were tested by; raises KeyError, TypeError or ValueError."""
    rows = slice_rows(content)
    calibration = content["calibration"]
    discovery = content.get("discovery") or {}
    return SlicesPart(
        n=int(content["n"]),
        threshold=float(content["threshold"]),
        calibration=_say_calibration(calibration),
        by_champion=content.get("champion_sha256") is not None,
        level=float(content["level"]),
        num_resamples=int(content["num_resamples"]),
        rate=float(content["false_discovery_rate"]),
        clustered_by=content["clustered_by"],
        num_tested=int(content["num_tested"]),
        num_worse=int(content["num_worse"]),
        overall_error=Score.of(content["overall"]["accuracy"]).complement,
        rows=rows,
        found=found_slices(content),
        num_tried=discovery.get("num_tried"),
        num_suggested=discovery.get("num_suggested"),
        notes=[str(note) for note in discovery.get("notes", ())],
        reach=largest_reach(rows),
    )


def _say_calibration(calibration: Mapping[str, Any]) -> str:
    """Return "", or how the probabilities were calibrated."""
    kind = str(calibration.get("kind", "none"))
    if kind == "none":
        return ""
    if kind == "temperature":
        return f"calibrated at temperature {float(calibration['temperature']):.3g}"
    return f"calibrated ({kind})"
