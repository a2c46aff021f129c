"""What the page shows of one scored split: rows of scores, figures, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ml_core.errors import MLCoreError
from ml_core.evaluation import plots
from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.gallery import Gallery, ReadPatches, build_galleries
from ml_core.evaluation.report.operating_point import OperatingPoint, build_operating_point
from ml_core.evaluation.report.scores import (
    BASELINE_LABELS,
    HEADLINE,
    ScoreRow,
    check_baselines,
    score_rows,
)
from ml_core.evaluation.report.split_facts import SplitFacts
from ml_core.findings import Finding

AREAS = {"roc": "roc_auc", "precision_recall": "pr_auc"}  # of a curve -> the metric


@dataclass(frozen=True)
class SplitPage:
    """One scored split; `anchor` starts each of its ids."""

    facts: SplitFacts
    anchor: str
    rows: Sequence[ScoreRow]
    operating: OperatingPoint | None  # where the predictions have labels
    figures: Sequence[FigureBlock]
    galleries: Sequence[Gallery]
    findings: Sequence[Finding] = field(default_factory=list)

    @property
    def headline(self) -> list[ScoreRow]:
        return [row for name in HEADLINE for row in self.rows if row.name == name]

    @property
    def baseline_labels(self) -> dict[str, str]:
        """The baselines that were scored, in the order of the table."""
        scored = self.facts.scores["baselines"] if self.facts.scores else {}
        return {key: label for key, label in BASELINE_LABELS.items() if key in scored}

    @property
    def cells(self) -> Mapping[str, int] | None:
        """The confusion matrix as it was scored."""
        return self.facts.scores["confusion"] if self.facts.scores else None

    def area(self, curve: str) -> ScoreRow | None:
        """Return the score that is the area under `curve`, where it is defined."""
        named = (row for row in self.rows if row.name == AREAS[curve])
        return next((row for row in named if row.value is not None), None)


def build_split_page(facts: SplitFacts, anchor: str, read_patches: ReadPatches | None) -> SplitPage:
    """Return everything the page shows of one split, figures drawn; galleries if patches can be."""
    rows = score_rows(facts.scores) if facts.scores else []
    findings = [*facts.findings, *check_baselines(rows)]
    operating, figures, galleries = None, [], []
    if facts.labelled is not None:
        operating = build_operating_point(facts.labelled, facts.scores, f"{anchor}-operating")
        figures = [_reliability(facts, anchor)]
        if read_patches is not None:
            try:
                galleries = build_galleries(facts.labelled, operating.threshold, read_patches)
            except (MLCoreError, OSError) as error:
                message = f"No example patches are shown: they could not be read. {error}"
                findings.append(Finding("no-examples", "info", message))
    return SplitPage(facts, anchor, rows, operating, figures, galleries, findings)


def _reliability(facts: SplitFacts, anchor: str) -> FigureBlock:
    assert facts.labelled is not None, "drawn of labelled predictions only"
    figure = plots.plot_reliability(facts.labelled.labels, facts.labelled.y_prob)
    said = "Share of tumours over mean predicted probability, in ten bins, with 95 % intervals"
    return figure_block(figure, "reliability", anchor, "Reliability", said, facts.table.name)
