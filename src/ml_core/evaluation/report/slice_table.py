"""Slices as the page shows them: a row each, worst first, and those that a search found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """A value with its interval; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Score:
        """Return what a file holds of a score, whatever else is written beside it."""
        return cls(written["value"], written["low"], written["high"])

    @property
    def complement(self) -> Score:
        """1 minus the score: accuracy turned into error."""
        return Score(_one_minus(self.value), _one_minus(self.high), _one_minus(self.low))


@dataclass(frozen=True)
class Difference(Score):
    """A slice minus the rest; `q` is p corrected for the number of slices."""

    p: float | None = None
    q: float | None = None

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Difference:
        """Return what slices.json holds of a difference."""
        return cls(*(written[key] for key in ("value", "low", "high", "p", "q")))


@dataclass(frozen=True)
class SliceRow:
    """One slice; `metrics` and `differences` are empty where it is too small to be scored."""

    place: int  # in the file, which is worst first
    name: str
    group: str
    kind: str
    where: str
    said: str
    note: str
    too_small: str
    n: int
    positives: int
    prevalence: float | None
    num_slides: int | None
    metrics: Mapping[str, Score]
    differences: Mapping[str, Difference]
    standing: str
    examples: tuple[int, ...]

    @property
    def error(self) -> Score:
        """The share of its patches that is wrong."""
        return self.metrics["accuracy"].complement if "accuracy" in self.metrics else Score(None)

    @property
    def difference(self) -> Difference:
        """Its error rate minus that of the rest, adjusted for class."""
        return self.differences.get("error", Difference(None))


@dataclass(frozen=True)
class FoundSlice:
    """A slice that half of the patches suggested, and what the other half says of it."""

    place: int
    name: str
    where: str
    said: str
    found_by: str
    target: str
    n: int
    suggested: Mapping[str, float | None]  # n, error, rest_error, difference
    confirmed: Mapping[str, Any]  # n, errors, error, rest_error, p, q
    difference: Score  # as confirmed
    is_confirmed: bool
    looks: tuple[str, ...]
    examples: tuple[int, ...]


def slice_rows(content: Mapping[str, Any]) -> list[SliceRow]:
    """Return the slices of slices.json in its order, which is worst first.

    Raises KeyError, TypeError or ValueError where it is not as `SliceTable.to_dict` writes it.
    """
    return [_row(place, each) for place, each in enumerate(content["slices"], start=1)]


def found_slices(content: Mapping[str, Any]) -> list[FoundSlice]:
    """Return what the search for slices found, the confirmed first; raises as `slice_rows`."""
    found = (content.get("discovery") or {}).get("slices", [])
    return [_found(place, each) for place, each in enumerate(found, start=1)]


def largest_reach(rows: Sequence[SliceRow]) -> float:
    """Return how far the strips of differences reach to both sides: 0.1, 0.2, ... up to 1."""
    ends = [
        abs(end)
        for row in rows
        for end in (row.difference.value, row.difference.low, row.difference.high)
        if end is not None
    ]
    return next((tenth / 10 for tenth in range(1, 10) if max(ends, default=0.0) <= tenth / 10), 1.0)


def _row(place: int, each: Mapping[str, Any]) -> SliceRow:
    return SliceRow(
        place=place,
        name=str(each["name"]),
        group=str(each["group"]),
        kind=str(each["kind"]),
        where=str(each["where"]),
        said=str(each["said"]),
        note=str(each.get("note") or ""),
        too_small=str(each["too_small"]),
        n=int(each["n"]),
        positives=int(each["positives"]),
        prevalence=each["prevalence"],
        num_slides=each.get("num_slides"),
        metrics={name: Score.of(score) for name, score in each["metrics"].items()},
        differences={name: Difference.of(d) for name, d in each["differences"].items()},
        standing=str(each["standing"]),
        examples=tuple(int(index) for index in each["examples"]),
    )


def _found(place: int, each: Mapping[str, Any]) -> FoundSlice:
    confirmed = each["confirmed"]
    return FoundSlice(
        place=place,
        name=str(each["name"]),
        where=str(each["where"]),
        said=str(each["said"]),
        found_by=str(each["found_by"]),
        target=str(each.get("target", "errors")),
        n=int(each["n"]),
        suggested={key: each["suggested"][key] for key in ("n", "error", "rest_error")},
        confirmed={
            key: confirmed.get(key) for key in ("n", "errors", "error", "rest_error", "p", "q")
        },
        difference=Score.of(confirmed["difference"]),
        is_confirmed=bool(each["is_confirmed"]),
        looks=tuple(str(look["words"]) for look in each["looks"]),
        examples=tuple(int(index) for index in each.get("examples", ())),
    )


def _one_minus(value: float | None) -> float | None:
    return None if value is None else 1 - value
