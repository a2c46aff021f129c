"""How a model's features become few columns that do not follow what the model says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]

MAX_WIDTH = 64  # of a stored row: 99 % of the variance of a CNN's 384 features on real patches

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class FeatureBasis:
    """How raw features (N, D) become the few columns that are kept (N, K), K <= MAX_WIDTH."""

    mean: npt.NDArray[np.float64]  # (D,)
    matrix: npt.NDArray[np.float64]  # (D, K): takes the logit out, then turns to the main axes
    share_kept: float  # of the variance that is left without the logit

    def apply(self, features: npt.NDArray[np.floating[Any]]) -> Floats32:
        """Return the kept columns (N, K) of raw features (N, D)."""
        reduced = np.empty((len(features), self.matrix.shape[1]), np.float32)
        for start in range(0, len(features), _BLOCK_ROWS):  # doubles of all rows would take 4 times
            block = slice(start, start + _BLOCK_ROWS)
            reduced[block] = (features[block].astype(np.float64) - self.mean) @ self.matrix
        return reduced


def fit_basis(
    features: npt.NDArray[np.floating[Any]],
    direction: npt.NDArray[np.floating[Any]],
    max_width: int = MAX_WIDTH,
) -> FeatureBasis:
    """Return the basis fitted on `features` (N, D) of train; `direction` is `logit_direction`.

    First the logit is taken out: x' = x - S w (w . x) / (w . S w), with w the direction and S the
    covariance (the least-squares eraser of Belrose et al., LEACE, NeurIPS 2023, for a concept that
    is linear in x). Then no linear function of x' follows the logit on these rows; cutting off only
    the component along w leaves features that are correlated with it: of the best CNN they explain
    all of the logit (R2 1.000 on train), those of here 0.13 on valid, for which they are not
    fitted. Then the `max_width` main axes are kept (PCA), unscaled. Raises ValueError for other
    shapes or values that are not finite.
    """
    rows, w = np.asarray(features, np.float64), np.asarray(direction, np.float64)
    if rows.ndim != 2 or w.shape != rows.shape[1:] or len(rows) == 0:
        raise ValueError(
            f"features have shape {rows.shape} and the direction {w.shape}; "
            "needed are (N, D) with at least one row, and (D,)."
        )
    if not (np.isfinite(rows).all() and np.isfinite(w).all()):
        raise ValueError("features or direction are not finite; predict again.")
    mean = rows.mean(axis=0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    eraser = _eraser(covariance, w)
    variances, axes = np.linalg.eigh(eraser.T @ covariance @ eraser)
    order = np.argsort(-variances, kind="stable")[:max_width]
    axes = axes[:, order]
    # the sign of an axis is the solver's whim: its largest entry is made positive
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    total = float(variances.clip(min=0).sum())
    kept = float(variances[order].clip(min=0).sum()) / total if total > 0 else float("nan")
    return FeatureBasis(mean, eraser @ axes, kept)


def _eraser(
    covariance: npt.NDArray[np.float64], w: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the matrix (D, D) that centred rows are multiplied by from the right."""
    along = covariance @ w
    variance = float(w @ along)
    if variance <= 0:  # the logit is the same for all: nothing to take out
        return np.eye(len(w))
    return np.eye(len(w)) - np.outer(w, along) / variance
