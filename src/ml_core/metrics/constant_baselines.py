"""What needs no model: constant predictions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.metrics.scores import compute_metrics


def baseline_metrics(y_true: npt.ArrayLike, threshold: float = 0.5) -> dict[str, dict[str, float]]:
    """Return what needs no model: always positive, always negative, and the share of positives.

    The first two are decisions without a probability, so they have no loss (NaN). `prior` gives
    every patch the prevalence of these very patches, which a model has to find out.
    """
    labels = np.asarray(y_true)
    num_patches = len(labels)
    baselines = {
        "always_positive": compute_metrics(labels, np.ones(num_patches), threshold),
        "always_negative": compute_metrics(labels, np.zeros(num_patches), threshold),
        "prior": compute_metrics(labels, np.full(num_patches, labels.mean()), threshold),
    }
    baselines["always_positive"]["loss"] = float("nan")
    baselines["always_negative"]["loss"] = float("nan")
    return baselines
