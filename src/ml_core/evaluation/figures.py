"""Which figures a run has: those of its predictions, and those of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ml_core.evaluation import plots
from ml_core.evaluation.predictions import Predictions
from ml_core.metrics import compute_metrics, confusion, pr_curve_points, roc_curve_points
from ml_core.page.text import decimal


def prediction_figures(
    predictions: Predictions, scores: Mapping[str, Any] | None = None
) -> dict[str, Figure]:
    """Return ROC, precision-recall, confusion matrix, histogram and reliability by file name.

    `scores` is the content of metrics.json, whose threshold and intervals the figures then state;
    without it the threshold is 0.5. Raises RunError when the predictions have no labels.
    """
    labels, probs = predictions.labels, predictions.y_prob
    threshold = float(scores["threshold"]) if scores else 0.5
    values = compute_metrics(labels, probs, threshold)
    false_alarm_rate = 1 - values["specificity"]
    notes = {name: _note(name, scores) for name in ("roc_auc", "pr_auc")}
    name = predictions.split
    return {
        "roc": plots.plot_roc(
            {name: roc_curve_points(labels, probs)},
            note=notes["roc_auc"],
            operating_point=(false_alarm_rate, values["recall"]),
        ),
        "precision_recall": plots.plot_pr(
            {name: pr_curve_points(labels, probs)},
            prevalence=values["prevalence"],
            note=notes["pr_auc"],
            operating_point=(values["recall"], values["precision"]),
        ),
        "confusion_matrix": plots.plot_confusion_matrix(confusion(labels, probs, threshold)),
        "probabilities": plots.plot_probability_histogram(labels, probs, threshold),
        "reliability": plots.plot_reliability(labels, probs),
    }


def training_figures(
    epochs: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    best_epoch: int | None = None,
) -> dict[str, Figure]:
    """Return the training curves by file name, from the records of metrics.jsonl and steps.jsonl.

    A figure whose log is empty is left out.
    """
    figures = {}
    if epochs:
        figures["loss"] = plots.plot_loss(epochs, best_epoch)
        figures["metrics_by_epoch"] = plots.plot_epoch_metrics(epochs, best_epoch=best_epoch)
    if steps:
        figures["step_loss"] = plots.plot_step_loss(steps)
        figures["learning_rate"] = plots.plot_learning_rate(steps)
        figures["gradient_norm"] = plots.plot_gradient_norm(steps)
    return figures


def _note(name: str, scores: Mapping[str, Any] | None) -> str:
    """Return "ROC-AUC 0.944" with its interval below, as metrics.json has them."""
    metric = scores["metrics"].get(name) if scores else None
    if scores is None or metric is None or metric["value"] is None:
        return ""
    level = f"{scores['level']:.0%}".replace("%", " %")
    return (
        f"{plots.METRIC_LABELS[name]} {decimal(metric['value'])}\n"
        f"{level} interval {decimal(metric['low'])}–{decimal(metric['high'])}"
    )
