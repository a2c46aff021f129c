"""Labels, probabilities and losses of patches, checked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Sums = Floats | np.float64

_SMALLEST_PROB = float(np.finfo(np.float64).tiny)  # keeps log() finite where only y_prob is known


def checked(y_true: npt.ArrayLike, y_prob: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Return the two as 1-d int64 and float64; raises ValueError where they are no such thing."""
    labels, probs = np.asarray(y_true), np.asarray(y_prob, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probs.shape or len(labels) == 0:
        raise ValueError(
            f"y_true has shape {labels.shape} and y_prob {probs.shape}; "
            "needed are two 1-d arrays of one length, with at least one patch."
        )
    if not np.isin(labels, (0, 1)).all():
        wrong = labels[~np.isin(labels, (0, 1))][0]
        raise ValueError(f"y_true holds {wrong}; allowed are 0 (normal) and 1 (tumour).")
    outside = ~((probs >= 0) & (probs <= 1))  # also true for NaN
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"y_prob holds {int(outside.sum())} of {len(probs)} values that are NaN or outside "
            f"0..1, the first at position {first}: {probs[first]}. Needed are probabilities."
        )
    return labels.astype(np.int64), probs


def checked_losses(labels: Ints, probs: Floats, nll: npt.ArrayLike | None) -> Floats:
    """Return the loss of each patch: `nll`, or the cross-entropy of `probs` where it is None.

    A probability of 0 for the truth costs 708, as for the smallest float; scikit-learn says 36.
    Raises ValueError when `nll` is not one finite number per patch.
    """
    if nll is None:
        prob_of_truth = np.where(labels == 1, probs, 1 - probs)
        return -np.log(np.maximum(prob_of_truth, _SMALLEST_PROB))
    losses = np.asarray(nll, dtype=np.float64)
    if losses.shape != labels.shape or not np.isfinite(losses).all():
        raise ValueError(
            f"nll has shape {losses.shape} and {int((~np.isfinite(losses)).sum())} values that "
            f"are not finite; needed is one finite loss for each of the {len(labels)} patches."
        )
    return losses


def check_threshold(threshold: float) -> None:
    """Raise ValueError where `threshold` is not a number from 0 to 1."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; allowed are numbers from 0 to 1.")


def check_resampling(num_resamples: int, level: float) -> None:
    """Raise ValueError where no interval of `level` can be made of `num_resamples`."""
    if num_resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"num_resamples is {num_resamples} and level is {level}; "
            "allowed are at least 1 resample and a level between 0 and 1."
        )


def ratio(numerator: Sums, denominator: Sums) -> Floats:
    """Return the quotient, NaN where the denominator is 0."""
    quotient: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator > 0))
    return quotient
