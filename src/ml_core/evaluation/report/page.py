"""One run's part of the page, worked out from its facts; the template only lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.figures import training_figures
from ml_core.evaluation.report.champion_page import ChampionPage, build_champion_page
from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.report.scores import ScoreRow
from ml_core.evaluation.report.sealed_page import ReadOpenings, SealedPage, build_sealed_page
from ml_core.evaluation.report.split_page import SplitPage, build_split_page
from ml_core.findings import SEVERITIES, Finding

# name of the figure -> (heading, what a screen reader says, from which file); figures by step are
# those of dynamics.py
FIGURE_TEXTS = {
    "loss": ("Loss by epoch", "Training and validation loss by epoch", "metrics.jsonl"),
    "metrics_by_epoch": ("Validation by epoch", "Validation metrics by epoch", "metrics.jsonl"),
}
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
    """One run's part of the report; `anchor` starts each of its ids."""

    facts: RunFacts
    anchor: str
    valid: SplitPage
    test: SealedPage | None
    champion: ChampionPage | None
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
    def epoch_columns(self) -> dict[str, str]:
        """The columns of the epoch table that some record has."""
        keys = {key for record in self.facts.epochs for key in record}
        return {key: label for key, label in EPOCH_COLUMNS.items() if key in keys}


def build_run_page(
    facts: RunFacts,
    anchor: str,
    read_patches: ReadPatches | None,
    read_openings: ReadOpenings | None = None,
) -> RunPage:
    """Return everything the page shows of one run, figures drawn."""
    valid = build_split_page(facts.valid, anchor, read_patches)
    test = None
    if facts.test is not None:
        test = build_sealed_page(facts, f"{anchor}-test", read_patches, read_openings)
    champion = None
    if facts.champion is not None:
        champion = build_champion_page(facts.champion, facts.valid, f"{anchor}-champion")
    splits = dict(facts.record.data)
    if facts.test is not None and facts.test.scores is not None:
        splits["test"] = facts.test.scores["data"]
    return RunPage(
        facts=facts,
        anchor=anchor,
        valid=valid,
        test=test,
        champion=champion,
        findings=worst_first([*facts.findings, *_not_in(valid.findings, facts.findings)]),
        training_figures=_training_blocks(facts, anchor),
        splits=[SplitRow(name, dict(record)) for name, record in splits.items()],
    )


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
