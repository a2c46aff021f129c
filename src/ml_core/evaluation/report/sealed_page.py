"""What the page shows of an opened test split: how often, for whom, and what was promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.errors import RunError
from ml_core.evaluation.openings import Openings, check_openings
from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.report.scores import ScoreRow
from ml_core.evaluation.report.split_page import SplitPage, build_split_page
from ml_core.findings import Finding
from ml_core.runs import RunDir

ReadOpenings = Callable[[RunDir, str], Openings]  # of a run's test set, by its patches' SHA-256

HEADLINE = ("roc_auc", "recall", "precision", "f2")
COMPARED = (
    "recall", "specificity", "precision", "f2", "f1", "balanced_accuracy", "accuracy", "roc_auc",
    "pr_auc", "brier", "loss",
)  # fmt: skip


@dataclass(frozen=True)
class PromiseRow:
    """One metric: what validation promised of it, what the test gives, and raw at 0.5.

    Each is {"value", "low", "high"} or None. `standing` says where the test value lies to the
    promised interval: "within", "above", "below", or "" where there is none.
    """

    name: str
    label: str
    promised: Mapping[str, float | None] | None
    given: Mapping[str, float | None]
    raw_at_half: Mapping[str, float | None] | None
    standing: str


@dataclass(frozen=True)
class SealedPage:
    """The test part of one run's page; `said` is the sentence on the openings."""

    split: SplitPage
    said: str
    promises: Sequence[PromiseRow]
    findings: Sequence[Finding]

    @property
    def scores(self) -> Mapping[str, Any] | None:
        return self.split.facts.scores

    @property
    def is_unsealed(self) -> bool:
        return self.scores is not None and not self.scores["sealed"]

    @property
    def headline(self) -> list[PromiseRow]:
        return [row for name in HEADLINE for row in self.promises if row.name == name]

    @property
    def rows(self) -> list[ScoreRow]:
        """The headline's metrics beside the baselines."""
        return [row for name in HEADLINE for row in self.split.rows if row.name == name]


def build_sealed_page(
    run_facts: RunFacts,
    anchor: str,
    read_patches: ReadPatches | None,
    read_openings: ReadOpenings | None,
) -> SealedPage:
    """Return everything the page shows of the test split.

    The openings are counted anew with `read_openings`; without it, or where a ledger cannot be
    read, they are those that were known when the split was scored, and the sentence says so.
    """
    assert run_facts.test is not None, "the test split was opened for this run"
    split = build_split_page(run_facts.test, anchor, read_patches)
    scores = run_facts.test.scores
    if scores is None:
        return SealedPage(split, "How often this test set was opened is not known.", [], [])
    written = {finding["id"]: Finding(**finding) for finding in scores["findings"]}
    said, fresh = _count_openings(run_facts.run, scores, read_openings)
    findings = {**written, **{finding.id: finding for finding in fresh}}
    return SealedPage(
        split=split,
        said=said,
        promises=_promises(scores),
        findings=[*findings.values(), *split.findings],
    )


def _count_openings(
    run: RunDir, scores: Mapping[str, Any], read_openings: ReadOpenings | None
) -> tuple[str, list[Finding]]:
    said = scores["openings"]["said"]
    if read_openings is None:
        return f"{said} (Counted when it was scored.)", []
    try:
        openings = read_openings(run, scores["data"]["x_sha256"])
    except RunError as error:
        return f"{said} (Counted when it was scored; its ledger cannot be believed now.)", [
            Finding("ledger-damaged", "error", str(error))
        ]
    champion = scores["champion"]
    return str(openings), check_openings(openings, champion and champion["sha256"])


def _promises(scores: Mapping[str, Any]) -> list[PromiseRow]:
    champion = scores["champion"] or {}
    promised = {
        **champion.get("evidence", {}).get("metrics", {}),
        **champion.get("threshold", {}).get("expected", {}),
    }
    return [
        PromiseRow(
            name=name,
            label=METRIC_LABELS[name],
            promised=promised.get(name),
            given=scores["metrics"][name],
            raw_at_half=scores["raw_at_half"]["metrics"].get(name),
            standing=_standing(promised.get(name), scores["metrics"][name]["value"]),
        )
        for name in COMPARED
        if name in scores["metrics"]
    ]


def _standing(promised: Mapping[str, float | None] | None, value: float | None) -> str:
    if promised is None or value is None:
        return ""
    low, high = promised.get("low"), promised.get("high")
    if low is None or high is None:
        return ""
    return "below" if value < low else "above" if value > high else "within"
