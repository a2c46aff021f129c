"""Two runs on the same patches: what differs, which patches changed sides, and which slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.changed_sides import ChangedSides, change_sides, operated
from ml_core.evaluation.report.changed_slices import ChangedSlices, change_slices
from ml_core.evaluation.report.failures_files import read_contents
from ml_core.evaluation.report.failures_pictures import Pictures, take_pictures
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.report.slice_table import Score
from ml_core.findings import Finding
from ml_core.metrics import HIGHER_IS_BETTER


@dataclass(frozen=True)
class MetricChange:
    """One metric of both runs, and `difference`: B minus A, with its interval."""

    name: str
    label: str
    a: float | None
    b: float | None
    difference: Score
    p: float | None
    test: str

    @property
    def standing(self) -> str:
        """ "better" or "worse" where the whole interval says so of B, else ""."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or low <= 0 <= high:
            return ""
        return "better" if (low > 0) == HIGHER_IS_BETTER[self.name] else "worse"


@dataclass(frozen=True)
class Comparison:
    """What the page shows of two runs; `anchor` starts each of its ids and is the heading's.

    In a template: {% from "comparison.html.j2" import comparison_block %}, then
    comparison_block(comparison, level); the style sheet is that of the failures.
    """

    anchor: str
    names: tuple[str, str]
    folders: tuple[str, str]
    tables: tuple[str, str]  # of the predictions, as links
    metrics: Sequence[MetricChange]
    level: float | None  # of the intervals of the metrics
    sides: ChangedSides | None
    why_no_sides: str
    slices: ChangedSlices | None
    why_no_slices: str
    pictures: Pictures
    findings: Sequence[Finding]


def compare_runs(
    a: RunFacts,
    b: RunFacts,
    differences: Mapping[str, Mapping[str, Any]],
    *,
    names: tuple[str, str],
    read_patches: ReadPatches | None = None,
    anchor: str = "compared",
) -> Comparison:
    """Return how `b` differs from `a` on the patches that both were scored on.

    `differences` is what `paired_differences` gives for b and a, in this order: "value" is b's,
    "other" a's, "difference" b minus a, by metric, at the level of the scores of `a`. Both are
    judged as their metrics.json does. What cannot be compared is said, never raised.
    `read_patches(split, index)` gives patches at rising rows, (N, H, W, 3) uint8.
    """
    operated_a, operated_b = operated(a), operated(b)
    sides, why_no_sides = change_sides(operated_a, operated_b, names)
    slices, why_no_slices = _changed_slices(a, b, names)
    shown = [] if sides is None else [(sides.split, index) for index in sides.shown]
    pictures = take_pictures(read_patches, shown, anchor)
    findings = []
    if pictures.problem:
        message = f"Not all patches are shown: some could not be read. {pictures.problem}"
        findings.append(Finding("patches-not-read", "info", message))
    return Comparison(
        anchor=anchor,
        names=names,
        folders=(a.folder, b.folder),
        tables=(a.valid.table.name, b.valid.table.name),
        metrics=[_change(name, each) for name, each in differences.items()],
        level=a.scores["level"] if a.scores is not None else None,
        sides=sides,
        why_no_sides=why_no_sides,
        slices=slices,
        why_no_slices=why_no_slices,
        pictures=pictures,
        findings=findings,
    )


def _changed_slices(
    a: RunFacts, b: RunFacts, names: tuple[str, str]
) -> tuple[ChangedSlices | None, str]:
    """Return what `change_slices` gives, unless a file is of another model than was scored."""
    for name, facts in zip(names, (a, b), strict=True):
        content = read_contents(facts, "valid")["slices"]
        if content.is_of_another_model:
            return None, f"{content.name} of {name} is {content.why_not}: {content.command}"
    return change_slices(a.failures_of("valid"), b.failures_of("valid"), names)


def _change(name: str, written: Mapping[str, Any]) -> MetricChange:
    return MetricChange(
        name=name,
        label=METRIC_LABELS[name],
        a=written["other"],
        b=written["value"],
        difference=Score(written["difference"], written["low"], written["high"]),
        p=written["p_value"],
        test=str(written.get("test", "")),
    )
