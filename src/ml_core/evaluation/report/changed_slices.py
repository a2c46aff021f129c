"""In which slices two runs stand differently: no longer worse than the rest, or newly so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.report.failures_files import FORMAT
from ml_core.evaluation.report.slice_table import Score, SliceRow, slice_rows

CHANGES = ("gained", "lost", "both")  # in the order of the table


@dataclass(frozen=True)
class SliceChange:
    """A slice of both runs. `change` is "gained" where only A is worse there than elsewhere,
    "lost" where only B is, "both", or "" where the two intervals alone lie apart.
    """

    name: str
    said: str
    n: int
    error_a: Score
    error_b: Score
    standing_a: str
    standing_b: str
    change: str

    @property
    def difference(self) -> float | None:
        """The error rate of B minus that of A."""
        if self.error_a.value is None or self.error_b.value is None:
            return None
        return self.error_b.value - self.error_a.value


@dataclass(frozen=True)
class ChangedSlices:
    """The slices that both runs have, and those that only one has, by name.

    `redefined` have one name and two queries: the name, that of A, that of B.
    """

    num_shared: int
    changes: Sequence[SliceChange]
    only_a: Sequence[str]
    only_b: Sequence[str]
    redefined: Sequence[tuple[str, str, str]]

    def count(self, change: str) -> int:
        """Return how many slices changed in this way."""
        return sum(each.change == change for each in self.changes)


def change_slices(
    a: Mapping[str, Mapping[str, Any] | None],
    b: Mapping[str, Mapping[str, Any] | None],
    names: tuple[str, str],
) -> tuple[ChangedSlices | None, str]:
    """Return what changed between two slices.json; or None, and why that cannot be said.

    A slice is the same where its query is, and its name where it has none. Slices that a search
    found are left out: each run has its own.
    """
    tables = []
    for name, contents in zip(names, (a, b), strict=True):
        content = contents.get("slices")
        if content is None:
            return None, f"slices.json of {name} is absent: ml-core slice writes it."
        if content.get("format") != FORMAT:
            return (
                None,
                f"slices.json of {name} is of another format: ml-core slice writes it anew.",
            )
        try:
            tables.append({_key(row): row for row in slice_rows(content)})
        except (KeyError, TypeError, ValueError) as error:
            return None, f"slices.json of {name} is damaged ({type(error).__name__}: {error})."
    in_a, in_b = ({key: row for key, row in t.items() if key is not None} for t in tables)
    shared = [key for key in in_a if key in in_b]
    differing = [key for key in shared if in_a[key].n != in_b[key].n]
    if differing:
        row = in_a[differing[0]]
        return None, (
            f"their slices are not of the same patches: {row.name} has {row.n:,} with {names[0]} "
            f"and {in_b[differing[0]].n:,} with {names[1]}."
        )
    alone_a = {row.name: row for key, row in in_a.items() if key not in in_b}
    alone_b = {row.name: row for key, row in in_b.items() if key not in in_a}
    changes = [change for key in shared if (change := _change(in_a[key], in_b[key])) is not None]
    changes.sort(key=lambda each: (_order(each.change), -abs(each.difference or 0.0)))
    return (
        ChangedSlices(
            num_shared=len(shared),
            changes=changes,
            only_a=[name for name in alone_a if name not in alone_b],
            only_b=[name for name in alone_b if name not in alone_a],
            redefined=[
                (name, row.where, alone_b[name].where)
                for name, row in alone_a.items()
                if name in alone_b
            ],
        ),
        "",
    )


def _key(row: SliceRow) -> str | None:
    return None if row.kind == "discovered" else row.where or row.name


def _change(a: SliceRow, b: SliceRow) -> SliceChange | None:
    """Return what changed in one slice; None where nothing did that can be told from chance."""
    worse_a, worse_b = a.standing == "worse", b.standing == "worse"
    change = ""
    if worse_a and worse_b:
        change = "both"
    elif worse_a or worse_b:
        change = "gained" if worse_a else "lost"
    elif not _lie_apart(a.error, b.error):
        return None
    return SliceChange(a.name, a.said, a.n, a.error, b.error, a.standing, b.standing, change)


def _lie_apart(a: Score, b: Score) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.high < b.low or b.high < a.low


def _order(change: str) -> int:
    return CHANGES.index(change) if change in CHANGES else len(CHANGES)
