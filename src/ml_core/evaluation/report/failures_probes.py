"""What unsettles the model and what it may lean on, as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.slice_table import Score
from ml_core.evaluation.robustness.plots import plot_robustness
from ml_core.evaluation.shortcut_plot import plot_shortcuts


@dataclass(frozen=True)
class Worst:
    """The corruption that costs most, at its strength."""

    name: str
    label: str
    metric: str
    difference: Score


@dataclass(frozen=True)
class ProbePoint:
    """One strength of one corruption."""

    name: str
    label: str
    metrics: Mapping[str, Score]
    difference: Mapping[str, Score]
    in_train_range: bool | None


@dataclass(frozen=True)
class RobustnessPart:
    """What the page shows of explain.json's robustness."""

    n: int
    metric: str
    worst: Worst | None
    worst_in_train_range: Worst | None
    worst_recall_in_train_range: Worst | None
    flat_ok: bool | None
    flat_names: Sequence[str]
    points: Sequence[ProbePoint]
    figures: Sequence[FigureBlock]


@dataclass(frozen=True)
class ShortcutRow:
    """A property of the patches that tells the classes apart without looking at cells."""

    name: str
    auc: Score
    model_minus_it: Score
    at_like_values: Score  # ROC-AUC of the model among patches alike in it
    within_normal: Score
    within_tumour: Score


@dataclass(frozen=True)
class ShortcutsPart:
    """What the page shows of the audit's shortcuts beside the model."""

    model_auc: Score
    rows: Sequence[ShortcutRow]
    figures: Sequence[FigureBlock]


def build_robustness_part(content: Mapping[str, Any], anchor: str, source: str) -> RobustnessPart:
    """Return curves and points; raises KeyError, TypeError or ValueError."""
    curves, metric = content["curves"], str(content["metric"])
    names = ", ".join(str(curve["name"]) for curve in curves)
    figure = figure_block(
        plot_robustness(curves, metric), "robustness", anchor, "By strength of each corruption",
        f"{METRIC_LABELS[metric]} over the strength of {names}", source,
    )  # fmt: skip
    return RobustnessPart(
        n=int(content["n"]),
        metric=metric,
        worst=_worst(content["worst"], metric),
        worst_in_train_range=_worst(content["worst_in_train_range"], metric),
        worst_recall_in_train_range=_worst(content.get("worst_recall_in_train_range"), "recall"),
        flat_ok=content["flat_ok"],
        flat_names=[str(curve["name"]) for curve in curves if curve["expect"] == "flat"],
        points=[_point(curve["name"], point) for curve in curves for point in curve["points"]],
        figures=[figure],
    )


def build_shortcuts_part(content: Mapping[str, Any], anchor: str, source: str) -> ShortcutsPart:
    """Return the properties beside the model; raises KeyError, TypeError or ValueError."""
    rows = [
        ShortcutRow(
            name=str(each["name"]).replace("-", " "),
            auc=Score.of(each["auc"]),
            model_minus_it=Score.of(each["model_minus_it"]),
            at_like_values=Score.of(each["auc_at_like_values"]),
            within_normal=Score.of(each["within_class"]["normal"]),
            within_tumour=Score.of(each["within_class"]["tumour"]),
        )
        for each in content["properties"]
    ]
    figures = []
    if rows:
        figures = [
            figure_block(
                plot_shortcuts(content), "shortcuts", anchor, "Simple properties beside the model",
                "Of each property its ROC-AUC, the model's among patches alike in it, and its rank "
                "correlation with the logit within each class", source,
            )
        ]  # fmt: skip
    return ShortcutsPart(Score.of(content["model_auc"]), rows, figures)


def _worst(written: Mapping[str, Any] | None, metric: str) -> Worst | None:
    if not written:
        return None
    difference = Score.of(written["difference"])
    return Worst(str(written["name"]), str(written["label"]), METRIC_LABELS[metric], difference)


def _point(name: str, point: Mapping[str, Any]) -> ProbePoint:
    return ProbePoint(
        name=str(name),
        label=str(point["label"]),
        metrics={metric: Score.of(score) for metric, score in point["metrics"].items()},
        difference={metric: Score.of(score) for metric, score in point["difference"].items()},
        in_train_range=point["in_train_range"],
    )
