"""What the baselines score beside a model, on the same patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from ml_core.metrics import SAMPLE_FACTS, compute_metrics, delong_test

THRESHOLD = 0.5  # of a baseline; one that was chosen for a model's probabilities means nothing here
NO_PROBABILITY = ("always_positive", "always_negative")  # decisions, so they have no loss


def score_baselines(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    baselines: Mapping[str, npt.ArrayLike],
    *,
    thresholds: Mapping[str, float] | None = None,
    level: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Return for each baseline every metric, and how far the model is above it in ROC-AUC.

    `y_prob` (N,) is the model's and `baselines` hold theirs, (N,) each, in the same order.
    "threshold" is where the metrics call a patch positive: what `thresholds` says, else 0.5.
    "auc_difference" is the model's ROC-AUC minus the baseline's: value, low, high, p by DeLong's
    test for paired predictions. NaN where undefined; always positive and always negative have no
    loss. Raises ValueError for arrays that cannot be scored.
    """
    thresholds = thresholds or {}
    scores: dict[str, dict[str, Any]] = {}
    for name, probs in baselines.items():
        threshold = thresholds.get(name, THRESHOLD)
        metrics = compute_metrics(y_true, probs, threshold)
        if name in NO_PROBABILITY:
            metrics["loss"] = float("nan")
        test = delong_test(y_true, y_prob, probs, level)
        scores[name] = {
            **{metric: value for metric, value in metrics.items() if metric not in SAMPLE_FACTS},
            "threshold": threshold,
            "auc_difference": {
                "value": test.difference,
                "low": test.interval.low,
                "high": test.interval.high,
                "p": test.p_value,
            },
        }
    return scores
