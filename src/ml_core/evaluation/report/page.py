"""One run's part of the page, worked out from its facts; the template only lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ml_core.errors import MLCoreError
from ml_core.evaluation.figures import prediction_figures, training_figures
from ml_core.evaluation.report.gallery import Gallery, ReadPatches, build_galleries
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.report.scores import (
    HEADLINE,
    ScoreRow,
    check_baselines,
    score_rows,
)
from ml_core.findings import Finding
from ml_core.page.svg import figure_to_svg
from ml_core.page.text import decimal

SEVERITIES = ("error", "warning", "info")

# name of the figure -> (heading, what a screen reader says, from which file)
FIGURE_TEXTS = {
    "roc": ("ROC curve", "True positive rate over false positive rate", "predictions"),
    "precision_recall": ("Precision and recall", "Precision over recall", "predictions"),
    "probabilities": (
        "Probabilities by class",
        "Histogram of the predicted probability of tumour, for normal and tumour patches",
        "predictions",
    ),
    "reliability": (
        "Reliability",
        "Share of tumours over mean predicted probability, in ten bins, with 95 % intervals",
        "predictions",
    ),
    "loss": ("Loss by epoch", "Training and validation loss by epoch", "metrics.jsonl"),
    "metrics_by_epoch": ("Validation by epoch", "Validation metrics by epoch", "metrics.jsonl"),
    "step_loss": ("Training loss by step", "Loss of each training batch by step", "steps.jsonl"),
    "learning_rate": ("Learning rate", "Learning rate by step", "steps.jsonl"),
    "gradient_norm": ("Gradient norm", "Global gradient norm by step", "steps.jsonl"),
}
PREDICTION_FIGURES = ("roc", "precision_recall", "probabilities", "reliability")
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
class FigureBlock:
    """A figure with its heading and the file its numbers are from."""

    name: str
    title: str
    svg: Markup
    source: str


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
    rows: Sequence[ScoreRow]
    findings: Sequence[Finding]
    prediction_figures: Sequence[FigureBlock]
    training_figures: Sequence[FigureBlock]
    galleries: Sequence[Gallery]
    splits: Sequence[SplitRow]

    @property
    def headline(self) -> list[ScoreRow]:
        return [row for name in HEADLINE for row in self.rows if row.name == name]

    @property
    def confusion_rows(self) -> list[tuple[str, list[tuple[int, float | None, bool]]]]:
        """By true class: (count, share of that class, whether the call is right) per call."""
        assert self.facts.scores is not None
        cells = self.facts.scores["confusion"]
        table = []
        for truth, pair in (("normal", ("tn", "fp")), ("tumour", ("fn", "tp"))):
            counts = [int(cells[name]) for name in pair]
            total = sum(counts)
            table.append(
                (
                    truth,
                    [
                        (count, count / total if total else None, name in ("tn", "tp"))
                        for name, count in zip(pair, counts, strict=True)
                    ],
                )
            )
        return table

    @property
    def epoch_columns(self) -> dict[str, str]:
        """The columns of the epoch table that some record has."""
        keys = {key for record in self.facts.epochs for key in record}
        return {key: label for key, label in EPOCH_COLUMNS.items() if key in keys}


def build_run_page(facts: RunFacts, anchor: str, read_patches: ReadPatches | None) -> RunPage:
    """Return everything the page shows of one run, figures drawn."""
    rows = score_rows(facts.scores) if facts.scores else []
    findings = [*facts.findings, *check_baselines(rows)]
    galleries: list[Gallery] = []
    labelled = facts.labelled
    if labelled is not None and read_patches is not None:
        threshold = facts.scores["threshold"] if facts.scores else 0.5
        try:
            galleries = build_galleries(labelled, threshold, read_patches)
        except (MLCoreError, OSError) as error:
            message = f"No example patches are shown: they could not be read. {error}"
            findings.append(Finding("no-examples", "info", message))
    return RunPage(
        facts=facts,
        anchor=anchor,
        rows=rows,
        findings=sorted(findings, key=_by_severity),
        prediction_figures=_prediction_blocks(facts, anchor),
        training_figures=_training_blocks(facts, anchor),
        galleries=galleries,
        splits=[SplitRow(name, dict(record)) for name, record in facts.record.data.items()],
    )


def _prediction_blocks(facts: RunFacts, anchor: str) -> list[FigureBlock]:
    if facts.labelled is None:
        return []
    figures = prediction_figures(facts.labelled, facts.scores)
    source = facts.table.name
    return [_block(figures[name], name, anchor, facts, source) for name in PREDICTION_FIGURES]


def _training_blocks(facts: RunFacts, anchor: str) -> list[FigureBlock]:
    figures = training_figures(facts.epochs, facts.steps, facts.best_epoch)
    return [
        _block(figure, name, anchor, facts, FIGURE_TEXTS[name][2])
        for name, figure in figures.items()
    ]


def _block(figure: Any, name: str, anchor: str, facts: RunFacts, source: str) -> FigureBlock:
    title, description, _ = FIGURE_TEXTS[name]
    metric = {"roc": "roc_auc", "precision_recall": "pr_auc"}.get(name)
    if metric is not None and facts.scores is not None:
        value = facts.scores["metrics"].get(metric, {}).get("value")
        description += f"; area {decimal(value)}"
    svg = figure_to_svg(figure, f"{anchor}-{name}", f"{description}.")
    return FigureBlock(name, title, svg, source)


def _by_severity(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity) if finding.severity in SEVERITIES else 0
