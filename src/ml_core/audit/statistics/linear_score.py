"""Scores of a linear model, on rows it has not seen, that tell two groups apart."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pandas as pd

NUM_FOLDS = 5

_RIDGE = 1e-3  # of the number of rows: columns that repeat each other must not blow up
_TAIL = 0.001  # values beyond these quantiles are pulled in: one at 1e5 would own the fit


def fold_numbers(content_hash: pd.Series) -> npt.NDArray[np.int64]:
    """Return a fold 0..4 per patch, by its hash: the same for exact repeats, whatever the order."""
    codes, hashes = pd.factorize(content_hash, use_na_sentinel=False)
    folds = [zlib.crc32(str(each).encode()) % NUM_FOLDS for each in hashes]
    return np.array(folds, np.int64)[codes]


def out_of_fold_scores(
    columns: npt.NDArray[np.floating],
    target: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return a score per row, higher where `target` is likelier, from a fit on the other folds.

    Ridge least squares on the standardised columns (n, d), their squares and, of up to four
    columns, their products: for two groups, Fisher's linear discriminant up to scale (Hastie,
    Tibshirani and Friedman 2009, exercise 4.2), solved in closed form. Both groups weigh the same
    however many rows they have. It sees no interaction that squares and products do not express.
    Rows with a NaN count as average.
    """
    inputs = _expand(_standardise(columns))
    weights = np.where(target, 0.5 / max(target.sum(), 1), 0.5 / max((~target).sum(), 1))
    signs = np.where(target, 1.0, -1.0)
    held = [folds == fold for fold in range(NUM_FOLDS)]
    grams = [inputs[rows].T @ (weights[rows, None] * inputs[rows]) for rows in held]
    sides = [inputs[rows].T @ (weights[rows] * signs[rows]) for rows in held]
    ridge = _RIDGE * np.eye(inputs.shape[1])
    scores = np.zeros(len(inputs))
    for rows, gram, side in zip(held, grams, sides, strict=True):
        coefficients = np.linalg.solve(sum(grams) - gram + ridge, sum(sides) - side)
        scores[rows] = inputs[rows] @ coefficients
    return scores


def _standardise(columns: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    values = np.where(np.isfinite(columns), columns, np.nan).astype(np.float64)
    for column in values.T:
        known = column[~np.isnan(column)]
        if len(known) == 0:
            column[:] = 0
            continue
        low, high = np.quantile(known, [_TAIL, 1 - _TAIL])
        np.clip(column, low, high, out=column)
        known = np.clip(known, low, high)
        spread = known.std()
        column -= known.mean()
        column /= spread if spread > 0 else 1
        column[np.isnan(column)] = 0
    return values


def _expand(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    products = [values**2]
    if values.shape[1] <= 4:
        first, second = np.triu_indices(values.shape[1], k=1)
        products.append(values[:, first] * values[:, second])
    return np.hstack([np.ones((len(values), 1)), values, *products])
