"""Calibration measured on patches that it was not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.errors import RunError
from ml_core.evaluation.calibration import (
    Calibration,
    calibration_scores,
    checked_logits,
    fit_calibration,
)
from ml_core.metrics.arrays import Floats, Ints
from ml_core.reproducibility import Stream, philox_words

NUM_FOLDS = 5


def calibration_report(
    kind: str, y_true: npt.ArrayLike, logit: npt.ArrayLike, seed: int = 0
) -> tuple[Calibration, dict[str, Any]]:
    """Return the calibration fitted on all patches, and its dict with scores before and after.

    `before` and `after` are `calibration_scores`; `after` is cross-fitted, so of patches that each
    fit has not seen. `after_in_sample` is of the fit on all patches to the same patches: too good,
    hardly for one temperature, clearly for an isotonic curve.
    """
    labels, logits = checked_logits(y_true, logit)
    calibration = fit_calibration(kind, labels, logits)
    probs = {
        "before": Calibration().apply(logits),
        "after": cross_fitted(kind, labels, logits, seed),
        "after_in_sample": calibration.apply(logits),
    }
    scores = {name: calibration_scores(labels, each) for name, each in probs.items()}
    return calibration, {**calibration.to_dict(), **scores, "num_folds": NUM_FOLDS, "seed": seed}


def cross_fitted(kind: str, y_true: npt.ArrayLike, logit: npt.ArrayLike, seed: int = 0) -> Floats:
    """Return calibrated probabilities (N,), each from a fit on the other four of five folds.

    Folds are drawn within each class from words that depend on `seed`, and on how the patches
    rank, not on the order of the rows. Raises RunError with fewer than two patches of a class, and
    as `fit_calibration`.
    """
    labels, logits = checked_logits(y_true, logit)
    fewest = int(min(labels.sum(), len(labels) - labels.sum()))
    if kind != "none" and fewest < 2:
        raise RunError(
            f"calibration cannot be checked on patches it was not fitted on: one class has "
            f"{fewest} of {len(labels):,} patches, and at least 2 are needed."
        )
    folds = _folds(labels, logits, min(NUM_FOLDS, max(fewest, 1)), seed)
    probs = np.empty(len(labels))
    for fold in np.unique(folds):
        held = folds == fold
        fit_on = ~held if kind != "none" else held
        probs[held] = fit_calibration(kind, labels[fit_on], logits[fit_on]).apply(logits[held])
    return probs


def _folds(labels: Ints, logits: Floats, num_folds: int, seed: int) -> Ints:
    order = np.lexsort((labels, logits))
    words = philox_words(seed, 0, Stream.FOLDS, len(labels))[:, 0]
    folds = np.empty(len(labels), np.int64)
    for label in (0, 1):
        of_class = labels[order] == label
        dealt = order[of_class][np.argsort(words[of_class], kind="stable")]
        folds[dealt] = np.arange(len(dealt)) % num_folds
    return folds
