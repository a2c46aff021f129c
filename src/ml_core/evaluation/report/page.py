"""One run's part of the page, worked out from its facts; the template only lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.figures import training_figures
from ml_core.evaluation.report.champion_page import ChampionPage, build_champion_page
from ml_core.evaluation.report.failures import FailuresPage, build_failures_page
from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.report.scores import ScoreRow
from ml_core.evaluation.report.sealed_page import ReadOpenings, SealedPage, build_sealed_page
from ml_core.evaluation.report.split_page import SplitPage, build_split_page
from ml_core.evaluation.report.worst_slices import WorstSlices, worst_slices
from ml_core.findings import SEVERITIES, Finding

# name of the figure -> (heading, what a screen reader says, from which file); figures by step are
# those of dynamics.py
FIGURE_TEXTS = {
    "loss": ("Loss by epoch", "Training and validation loss by epoch", "metrics.jsonl"),
    "metrics_by_epoch": ("Validation by epoch", "Validation metrics by epoch", "metrics.jsonl"),
}
NAMED_AS_WORST = ("slices-worse", "slices-discovered")  # findings that name the worst slices
MAX_PICTURES = 240  # of 4 to 6 KB each: with all else, the page stays well under 5 MB
EPOCH_COLUMNS = {
    "epoch": "epoch",
    "train_loss": "train loss",
    "val_loss": "valid loss",
    "val_roc_auc": "ROC-AUC",
    "val_pr_auc": "PR-AUC",
    "val_accuracy": "accuracy",
    "val_f1": "F1",
    "val_f2": "F2",
    "learning_rate": "learning rate",
    "train_patches_per_s": "patches/s",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class SplitRow:
    """What was used of one split, as run.json has it; counts are None in a record without them."""

    name: str
    record: Mapping[str, Any]

    @property
    def num_rows(self) -> int | None:
        return self.record.get("num_rows")

    @property
    def num_patches(self) -> int | None:
        return self.record.get("num_patches")

    @property
    def num_left_out(self) -> int | None:
        if self.num_rows is None or self.num_patches is None:
            return None
        return self.num_rows - self.num_patches

    @property
    def share_positive(self) -> float | None:
        positives = self.record.get("num_positive")
        if positives is None or not self.num_patches:
            return None
        return float(positives / self.num_patches)


@dataclass(frozen=True)
class RunPage:
    """One run's part of the report; `anchor` starts each of its ids.

    `failures` are of validation, `test_failures` of the test split where one of its files is there.
    `worst_slices` are of the test split where it was sliced.
    """

    facts: RunFacts
    anchor: str
    valid: SplitPage
    test: SealedPage | None
    champion: ChampionPage | None
    failures: FailuresPage
    test_failures: FailuresPage | None
    worst_slices: WorstSlices | None
    findings: Sequence[Finding]
    training_figures: Sequence[FigureBlock]
    splits: Sequence[SplitRow]

    @property
    def rows(self) -> Sequence[ScoreRow]:
        """The scores of validation."""
        return self.valid.rows

    @property
    def headline(self) -> list[ScoreRow]:
        """The first scores of validation."""
        return self.valid.headline

    @property
    def has_audit(self) -> bool:
        """Whether the run's copy of audit.json can be linked to."""
        return any(file.name == "audit.json" and file.state == "read" for file in self.facts.files)

    @property
    def all_findings(self) -> list[Finding]:
        """The findings on the run and those on its test score, the worst first.

        Without those that only name slices which the verdict shows anyway.
        """
        of_test = self.test.findings if self.test else ()
        found = worst_first([*_not_in(of_test, self.findings), *self.findings])
        shown = NAMED_AS_WORST if self.worst_slices else ()
        return [finding for finding in found if finding.id not in shown]

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The parts of this run's page: the id of the heading, and how it is called."""
        parts = [(self.failures.anchor, "Where it fails")]
        if self.test:
            parts.append((self.test.split.anchor, "Test"))
        if self.champion:
            parts.append((self.champion.anchor, "Champion"))
        parts.append((f"{self.anchor}-scores", "Scores"))
        if self.valid.operating:
            parts.append((self.valid.operating.anchor, "Operating point"))
        titles = ("Predictions", "Training", "Data", "Provenance")
        return [*parts, *((f"{self.anchor}-{title.lower()}", title) for title in titles)]

    @property
    def epoch_columns(self) -> dict[str, str]:
        """The columns of the epoch table that some record has."""
        keys = {key for record in self.facts.epochs for key in record}
        return {key: label for key, label in EPOCH_COLUMNS.items() if key in keys}


def build_run_page(
    facts: RunFacts,
    anchor: str,
    read_patches: ReadPatches | None,
    read_openings: ReadOpenings | None = None,
    max_pictures: int = MAX_PICTURES,
) -> RunPage:
    """Return everything the page shows of one run, figures drawn.

    `max_pictures` is how many patches of the files on failures it shows at most.
    """
    failures, test_failures = _failures(facts, anchor, read_patches, max_pictures)
    valid = build_split_page(facts.valid, anchor, _unless_shown(failures, read_patches))
    test = champion = None
    if facts.test is not None:
        shown = _unless_shown(test_failures, read_patches)
        test = build_sealed_page(facts, f"{anchor}-test", shown, read_openings)
    if facts.champion is not None:
        champion = build_champion_page(
            facts.champion,
            facts.valid,
            f"{anchor}-champion",
            *facts.champion_file,
            is_tested=facts.test is not None,
        )
    sliced = test_failures if test_failures and test_failures.slices else failures
    findings = [*facts.findings, *_not_in(valid.findings, facts.findings)]
    for page in filter(None, (test_failures, failures)):
        grave = [finding for finding in page.findings if finding.severity != "info"]
        findings += _not_in(grave, findings)  # the others are said where they were found
    return RunPage(
        facts=facts,
        anchor=anchor,
        valid=valid,
        test=test,
        champion=champion,
        failures=failures,
        test_failures=test_failures,
        worst_slices=worst_slices(sliced),
        findings=worst_first(findings),
        training_figures=_training_blocks(facts, anchor),
        splits=_splits(facts),
    )


def _failures(
    facts: RunFacts, anchor: str, read_patches: ReadPatches | None, max_pictures: int
) -> tuple[FailuresPage, FailuresPage | None]:
    has_test = any(facts.failures_of("test").values())
    pictures = max_pictures // 2 if has_test else max_pictures
    of_test = None
    if has_test:
        of_test = build_failures_page(
            facts, f"{anchor}-test-fails", read_patches, "test", max_pictures=pictures
        )
    return build_failures_page(
        facts, f"{anchor}-fails", read_patches, "valid", max_pictures=pictures
    ), of_test


def _unless_shown(
    failures: FailuresPage | None, read_patches: ReadPatches | None
) -> ReadPatches | None:
    """Return `read_patches` unless errors.json brings galleries that say more."""
    return None if failures is not None and failures.errors is not None else read_patches


def _splits(facts: RunFacts) -> list[SplitRow]:
    records = dict(facts.record.data)
    if facts.test is not None and facts.test.scores is not None:
        records["test"] = facts.test.scores["data"]
    return [SplitRow(name, dict(record)) for name, record in records.items()]


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings by severity; one of a severity that is not known here comes first."""
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    return sorted(findings, key=lambda finding: order.get(finding.severity, 0))


def _not_in(findings: Sequence[Finding], known: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding not in known]


def _training_blocks(facts: RunFacts, anchor: str) -> list[FigureBlock]:
    figures = training_figures(facts.epochs, [], facts.best_epoch)
    return [
        figure_block(figures[name], name, anchor, *texts)
        for name, texts in FIGURE_TEXTS.items()
        if name in figures
    ]
