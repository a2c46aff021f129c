"""What a split scores at every threshold: the counts behind the slider, and the picture of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.report.unit_picture import Curve, Distribution, curve, distribution
from ml_core.metrics import (
    Interval,
    compute_metrics,
    f_beta_interval,
    pr_curve_points,
    roc_curve_points,
    wilson_interval,
)
from ml_core.metrics.interval import normal_quantile

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

NUM_POSITIONS = 1001  # of the slider: every thousandth from 0 to 1
SHOWN = ("recall", "specificity", "precision", "f2", "f1", "accuracy")


@dataclass(frozen=True)
class Calls:
    """How many patches are called tumour at each threshold, by what they are."""

    thresholds: Floats  # (T,) rising
    tp: Counts  # (T,)
    fp: Counts  # (T,)
    positives: int
    negatives: int


@dataclass(frozen=True)
class Rate:
    """One metric at one threshold with its interval; None where undefined."""

    name: str
    label: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OperatingPoint:
    """The panel of one split; `frozen` is the position of the threshold that was scored."""

    anchor: str
    split: str
    calls: Calls
    frozen: int
    level: float
    rates: Sequence[Rate]  # at the frozen threshold
    roc: Curve
    pr: Curve
    distribution: Distribution

    @property
    def threshold(self) -> float:
        """The threshold that was scored."""
        return float(self.calls.thresholds[self.frozen])

    @property
    def half(self) -> int:
        """The position of the threshold 0.5."""
        return int(np.searchsorted(self.calls.thresholds, 0.5))

    @property
    def prevalence(self) -> float:
        """The share of tumours: the precision of calling everything one."""
        return self.calls.positives / (self.calls.positives + self.calls.negatives)

    @property
    def cells(self) -> dict[str, int]:
        """The confusion matrix at the frozen threshold."""
        tp, fp = int(self.calls.tp[self.frozen]), int(self.calls.fp[self.frozen])
        return {
            "tn": self.calls.negatives - fp,
            "fp": fp,
            "fn": self.calls.positives - tp,
            "tp": tp,
        }

    @property
    def quantile(self) -> float:
        """How many standard errors an interval of `level` reaches to each side."""
        return normal_quantile(self.level)


def build_operating_point(
    predictions: Predictions, scores: Mapping[str, Any] | None, anchor: str
) -> OperatingPoint:
    """Return the panel about labelled `predictions`, at the threshold of `scores`, else at 0.5."""
    labels, probs = predictions.labels, predictions.y_prob
    threshold = float(scores["threshold"]) if scores else 0.5
    level = float(scores["level"]) if scores else 0.95
    calls = count_calls(labels, probs, threshold)
    rates = rates_at(labels, probs, threshold, level)
    at = {rate.name: rate.value for rate in rates}
    false_alarm_rate = None if at["specificity"] is None else 1 - at["specificity"]
    return OperatingPoint(
        anchor=anchor,
        split=predictions.split,
        calls=calls,
        frozen=int(np.searchsorted(calls.thresholds, threshold)),
        level=level,
        rates=rates,
        roc=curve(roc_curve_points(labels, probs), false_alarm_rate, at["recall"]),
        pr=curve(pr_curve_points(labels, probs), at["recall"], at["precision"]),
        distribution=distribution(labels, probs),
    )


def count_calls(labels: npt.NDArray[np.int64], probs: Floats, frozen: float) -> Calls:
    """Return the counts of ``probs >= threshold`` at each thousandth from 0 to 1, and at `frozen`.

    They are counted at the very thresholds that are returned, ties included, so that each is what
    scikit-learn's confusion_matrix gives there.
    """
    thresholds = np.unique([*(np.arange(NUM_POSITIONS) / (NUM_POSITIONS - 1)), frozen])
    tumour, normal = np.sort(probs[labels == 1]), np.sort(probs[labels == 0])
    return Calls(
        thresholds=thresholds,
        tp=len(tumour) - np.searchsorted(tumour, thresholds, side="left"),
        fp=len(normal) - np.searchsorted(normal, thresholds, side="left"),
        positives=len(tumour),
        negatives=len(normal),
    )


def rates_at(
    labels: npt.NDArray[np.int64], probs: Floats, threshold: float, level: float
) -> list[Rate]:
    """Return the metrics of the panel at `threshold`, with the intervals of metrics.json."""
    values = compute_metrics(labels, probs, threshold)
    called = probs >= threshold
    tp, fp = int((called & (labels == 1)).sum()), int((called & (labels == 0)).sum())
    positives, negatives = int(labels.sum()), int(len(labels) - labels.sum())
    fn, tn = positives - tp, negatives - fp
    intervals: dict[str, Interval] = {
        "recall": wilson_interval(tp, positives, level),
        "specificity": wilson_interval(tn, negatives, level),
        "precision": wilson_interval(tp, tp + fp, level),
        "f2": f_beta_interval(tp, fp, fn, 2, level),
        "f1": f_beta_interval(tp, fp, fn, 1, level),
        "accuracy": wilson_interval(tp + tn, positives + negatives, level),
    }
    return [
        Rate(name, METRIC_LABELS[name], _known(values[name]), *map(_known, intervals[name]))
        for name in SHOWN
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
