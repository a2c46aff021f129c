"""Logistic regression on fixed features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

REGULARISATION = 1.0  # scikit-learn's C: the inverse of the weight of the squared coefficients
_MAX_ITERATIONS = 2000  # the random features of 20,000 real patches take about 400
_TOLERANCE = 1e-4  # of the largest gradient


@dataclass(frozen=True)
class LinearProbe:
    """Log-odds linear in the features; `facts` say how the fit went, JSON-able."""

    coefficients: Floats  # (F,), of the features as they come
    intercept: float
    facts: dict[str, Any]

    def predict(self, features: npt.NDArray[np.float32]) -> Floats:
        """Return the probability of tumour (n,) of features (n, F)."""
        logit = features.astype(np.float64) @ self.coefficients + self.intercept
        probs: Floats = np.exp(-np.logaddexp(0.0, -logit))  # no overflow at either end
        return probs


def fit_linear_probe(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    *,
    balanced: bool,
    standardise: bool,
) -> LinearProbe:
    """Return the L2-regularised logistic regression of labels (n,), 0 and 1, on features (n, F).

    scikit-learn's, with L-BFGS and C = 1. `balanced`: both classes weigh the same, whatever their
    numbers. `standardise`: features are brought to mean 0 and deviation 1 first, a constant one to
    mean 0. A fit that has not converged is kept, and says so in `facts`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    inputs = features.astype(np.float64)
    mean, scale = np.zeros(inputs.shape[1]), np.ones(inputs.shape[1])
    if standardise:
        mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
        # of a constant it is 0 exactly: sums of float32 values are exact in float64
        scale = np.where(deviation > 0, deviation, 1.0)
        inputs -= mean
        inputs /= scale
    model = LogisticRegression(
        C=REGULARISATION,
        solver="lbfgs",
        tol=_TOLERANCE,
        max_iter=_MAX_ITERATIONS,
        class_weight="balanced" if balanced else None,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(inputs, labels)
    coefficients = model.coef_[0] / scale
    return LinearProbe(
        coefficients,
        float(model.intercept_[0] - mean @ coefficients),
        {
            "num_features": inputs.shape[1],
            "C": REGULARISATION,
            "iterations": int(model.n_iter_[0]),
            "converged": not any(issubclass(each.category, ConvergenceWarning) for each in caught),
        },
    )
