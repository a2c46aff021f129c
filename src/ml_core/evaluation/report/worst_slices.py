"""The slices that the verdict names: worse than the rest, known before or found by search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml_core.evaluation.report.failures import FailuresPage
from ml_core.evaluation.report.slice_table import Difference, FoundSlice, Score, SliceRow

MOST = 4
# What a slice counts by its target: of which patches, and what is wrong with them.
COUNTED = {
    "errors": ("patches", "wrong"),
    "missed tumours": ("tumours", "missed"),
    "false alarms": ("normal patches", "called tumour"),
}


@dataclass(frozen=True)
class WorstSlice:
    """One slice: `rate` of `counted` patches ("tumours") is `wrong` ("missed").

    One that was found by search has the counts of the half that confirmed it, and no interval of
    its rate there.
    """

    name: str
    said: str
    rate: Score
    counted: int
    patches: str
    wrong: str
    difference: Difference
    is_found: bool


@dataclass(frozen=True)
class WorstSlices:
    """The slices of one split, worst first, and the threshold that they are wrong at."""

    split: str
    threshold: float
    file: str
    slices: Sequence[WorstSlice]


def worst_slices(page: FailuresPage, most: int = MOST) -> WorstSlices | None:
    """Return at most `most` slices that are worse than the rest, by how much; None for none.

    Those of the table that stand as worse, and those that a search found and confirmed.
    """
    part = page.slices
    if part is None:
        return None
    worse = [_of_table(row) for row in part.rows if row.standing == "worse"]
    slices = [*worse, *map(_of_search, part.confirmed)]
    slices.sort(key=lambda each: -(each.difference.value or 0.0))
    if not slices:
        return None
    return WorstSlices(page.split, part.threshold, page.contents["slices"].name, slices[:most])


def _of_table(row: SliceRow) -> WorstSlice:
    return WorstSlice(
        row.name, row.said, row.error, row.n, *COUNTED["errors"], row.difference, is_found=False
    )


def _of_search(found: FoundSlice) -> WorstSlice:
    patches, wrong = COUNTED.get(found.target, ("patches", found.target))
    difference = found.difference
    return WorstSlice(
        name=found.name,
        said=found.said,
        rate=Score(found.confirmed["error"]),
        counted=int(found.confirmed["n"]),
        patches=patches,
        wrong=wrong,
        difference=Difference(
            difference.value, difference.low, difference.high, q=found.confirmed["q"]
        ),
        is_found=True,
    )
