"""What other seeds of one recipe call the same patches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions


def calls_of(predictions: Predictions, threshold: float) -> npt.NDArray[np.bool_]:
    """Return which patches are called tumour, (N,): those of at least `threshold`."""
    calls: npt.NDArray[np.bool_] = predictions.y_prob >= threshold
    return calls


def seed_calls(
    predictions: Predictions, threshold: float, seed_predictions: Mapping[str, Predictions]
) -> npt.NDArray[np.bool_]:
    """Return which patches each other seed calls tumour, (S, N), in the order of `predictions`.

    All are called at the same threshold, so they should be calibrated alike. Raises RunError,
    naming the seed, for predictions of another split, of other patches or with other labels.
    """
    calls = np.zeros((len(seed_predictions), len(predictions)), dtype=bool)
    order = np.argsort(predictions.index)
    for row, (name, other) in enumerate(seed_predictions.items()):
        order_of_other = np.argsort(other.index)
        _check_same_patches(predictions, order, name, other, order_of_other)
        calls[row, order] = calls_of(other, threshold)[order_of_other]
    return calls


def _check_same_patches(
    predictions: Predictions,
    order: npt.NDArray[np.intp],
    name: str,
    other: Predictions,
    order_of_other: npt.NDArray[np.intp],
) -> None:
    if other.split != predictions.split:
        raise RunError(
            f"the predictions of {name} are of split {other.split!r}, these of "
            f"{predictions.split!r}; only predictions of the same patches can be compared."
        )
    if not np.array_equal(other.index[order_of_other], predictions.index[order]):
        missing = len(np.setdiff1d(predictions.index, other.index))
        more = len(np.setdiff1d(other.index, predictions.index))
        raise RunError(
            f"the predictions of {name} lack {missing} of the {len(predictions)} patches of split "
            f"{predictions.split!r} and have {more} others; seeds are compared patch by patch. "
            f"Evaluate it on the same files: ml-core evaluate {name}"
        )
    differ = int((other.labels[order_of_other] != predictions.labels[order]).sum())
    if differ:
        raise RunError(
            f"{differ} of {len(predictions)} labels of split {predictions.split!r} differ between "
            f"{name} and this run: they were scored on other label files. Evaluate both again."
        )
