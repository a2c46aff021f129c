"""What the page shows of one scored split: rows of scores, figures, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ml_core.errors import MLCoreError
from ml_core.evaluation.figures import prediction_figures
from ml_core.evaluation.report.figure_block import FigureBlock, area_note, figure_block
from ml_core.evaluation.report.gallery import Gallery, ReadPatches, build_galleries
from ml_core.evaluation.report.scores import HEADLINE, ScoreRow, check_baselines, score_rows
from ml_core.evaluation.report.split_facts import SplitFacts
from ml_core.findings import Finding

# name of the figure -> (heading, what a screen reader says)
FIGURE_TEXTS = {
    "roc": ("ROC curve", "True positive rate over false positive rate"),
    "precision_recall": ("Precision and recall", "Precision over recall"),
    "probabilities": (
        "Probabilities by class",
        "Histogram of the predicted probability of tumour, for normal and tumour patches",
    ),
    "reliability": (
        "Reliability",
        "Share of tumours over mean predicted probability, in ten bins, with 95 % intervals",
    ),
}


@dataclass(frozen=True)
class SplitPage:
    """One scored split; `anchor` starts each of its ids."""

    facts: SplitFacts
    anchor: str
    rows: Sequence[ScoreRow]
    figures: Sequence[FigureBlock]
    galleries: Sequence[Gallery]
    findings: Sequence[Finding] = field(default_factory=list)

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


def build_split_page(facts: SplitFacts, anchor: str, read_patches: ReadPatches | None) -> SplitPage:
    """Return everything the page shows of one split, figures drawn."""
    rows = score_rows(facts.scores) if facts.scores else []
    findings = [*facts.findings, *check_baselines(rows)]
    galleries: list[Gallery] = []
    if facts.labelled is not None and read_patches is not None:
        threshold = facts.scores["threshold"] if facts.scores else 0.5
        try:
            galleries = build_galleries(facts.labelled, threshold, read_patches)
        except (MLCoreError, OSError) as error:
            message = f"No example patches are shown: they could not be read. {error}"
            findings.append(Finding("no-examples", "info", message))
    return SplitPage(facts, anchor, rows, _figure_blocks(facts, anchor), galleries, findings)


def _figure_blocks(facts: SplitFacts, anchor: str) -> list[FigureBlock]:
    if facts.labelled is None:
        return []
    figures = prediction_figures(facts.labelled, facts.scores)
    return [
        figure_block(
            figures[name],
            name,
            anchor,
            title,
            description + area_note(name, facts.scores),
            facts.table.name,
        )
        for name, (title, description) in FIGURE_TEXTS.items()
    ]
