"""Several runs side by side: what they have in common, their spread, and their curves together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation import plots
from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.figure_block import FigureBlock
from ml_core.evaluation.report.page import RunPage
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.report.scores import OVERVIEW, Spread, spread_over_runs
from ml_core.findings import Finding
from ml_core.metrics import CurvePoints, roc_curve_points
from ml_core.page.svg import figure_to_svg
from ml_core.page.text import plain

# What must be the same for scores to be averaged, and how each run says it.
SAME_FOR_A_MEAN: dict[str, Callable[[RunFacts], Any]] = {
    "experiment": lambda facts: facts.record.experiment_name,
    "scored split": lambda facts: facts.scores and facts.scores["split"],
    "scored patches": lambda facts: facts.scores and facts.scores["n"],
    "threshold": lambda facts: facts.scores and facts.scores["threshold"],
    "model": lambda facts: facts.record.model.get("name"),
}
SAME_FOR_A_COMPARISON: dict[str, Callable[[RunFacts], Any]] = {
    "commit": lambda facts: facts.record.code.get("commit"),
    "data": lambda facts: {
        split: str(record.get("x_sha256"))[:12] for split, record in facts.record.data.items()
    },
}


@dataclass(frozen=True)
class Overview:
    """The first part of a report about several runs."""

    pages: Sequence[RunPage]
    spreads: dict[str, Spread]  # empty where a mean would mix what is not alike
    findings: Sequence[Finding]
    figures: Sequence[FigureBlock]
    folders: dict[str, str]  # of each run by its name, as seen from the page
    metric_labels: dict[str, str]
    baseline_labels: dict[str, str]

    @property
    def scored(self) -> list[RunPage]:
        return [page for page in self.pages if page.facts.scores is not None]


def build_overview(pages: Sequence[RunPage]) -> Overview:
    """Return the overview of at least two runs."""
    all_facts = [page.facts for page in pages]
    scored = [facts for facts in all_facts if facts.scores is not None]
    findings, spreads = [], {}
    if mixed := _differences(scored, SAME_FOR_A_MEAN):
        message = f"No mean over these runs is shown, since they differ: {'; '.join(mixed)}."
        findings.append(Finding("runs-not-alike", "warning", message))
    elif scored:
        all_scores = [facts.scores for facts in scored if facts.scores is not None]
        spreads = {name: spread_over_runs(all_scores, name) for name in OVERVIEW}
    if differ := _differences(all_facts, SAME_FOR_A_COMPARISON):
        message = f"These runs differ in more than the seed: {'; '.join(differ)}."
        findings.append(Finding("runs-differ", "warning", message))
    seeds = [facts.record.seed for facts in all_facts]
    if len(set(seeds)) < len(seeds):
        message = f"Some of these runs have the same seed: {', '.join(map(str, seeds))}."
        findings.append(Finding("seeds-repeat", "warning", message))
    return Overview(
        pages=pages,
        spreads=spreads,
        findings=findings,
        figures=_figures(all_facts),
        folders=dict(zip(run_names(all_facts), (facts.folder for facts in all_facts), strict=True)),
        metric_labels={name: METRIC_LABELS[name] for name in OVERVIEW},
        baseline_labels=next((p.valid.baseline_labels for p in pages if p.facts.scores), {}),
    )


def run_names(all_facts: Sequence[RunFacts]) -> list[str]:
    """Return the shortest names that tell the runs apart."""
    records = [facts.record for facts in all_facts]
    names = [f"seed {record.seed}" for record in records]
    if len({record.experiment_name for record in records}) > 1:
        names = [f"{record.experiment_name}, seed {record.seed}" for record in records]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, start=1)]
    return names


def _differences(
    all_facts: Sequence[RunFacts], sayings: dict[str, Callable[[RunFacts], Any]]
) -> list[str]:
    differences = []
    for what, say in sayings.items():
        values = list(dict.fromkeys(plain(say(facts)) for facts in all_facts))
        if len(values) > 1:
            differences.append(f"{what} is {' or '.join(values)}")
    return differences


def _figures(all_facts: Sequence[RunFacts]) -> list[FigureBlock]:
    names = run_names(all_facts)
    curves: dict[str, CurvePoints] = {}
    for name, facts in zip(names, all_facts, strict=True):
        if facts.labelled is not None:
            points = roc_curve_points(facts.labelled.labels, facts.labelled.y_prob)
            curves[name] = points
    epochs = {
        name: facts.epochs for name, facts in zip(names, all_facts, strict=True) if facts.epochs
    }
    blocks = []
    if curves:
        figure = plots.plot_roc(curves)
        svg = figure_to_svg(figure, "all-roc", f"ROC curves of {', '.join(curves)}.")
        blocks.append(FigureBlock("roc", "ROC curves", svg, "predictions/valid.parquet"))
    for key, label in (("val_roc_auc", "validation ROC-AUC"), ("val_loss", "validation loss")):
        if not any(key in record for records in epochs.values() for record in records):
            continue
        figure = plots.plot_epochs_of_runs(epochs, key, label)
        svg = figure_to_svg(figure, f"all-{key}", f"{label} by epoch of {', '.join(epochs)}.")
        title = f"{label[0].upper()}{label[1:]} by epoch"
        blocks.append(FigureBlock(key, title, svg, "metrics.jsonl"))
    return blocks
