"""One number per patch for a property that is made of several facts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_FOLDS = 5
_RIDGE = 1e-3  # of the number of rows: facts that repeat each other must not blow up
_TAIL = 0.001  # values beyond these quantiles are pulled in: one at 1e5 would own the fit
_FEWEST = 10  # patches of each class


def property_score(facts: Floats, y_true: Ints) -> Floats:
    """Return one number per patch (N,) for `facts` (N, D): of a single fact the fact itself.

    Of several it is how tumour-like they are: ridge least squares of the label on them and their
    squares, on the four fifths of the patches that a patch is not in. Patches with the same facts
    are in one fifth, whatever the order of the rows. An unknown fact among several counts as
    average. All are NaN with fewer than 10 patches of a class.
    """
    if facts.shape[1] == 1:
        return facts[:, 0]
    if min(np.count_nonzero(y_true == label) for label in (0, 1)) < _FEWEST:
        return np.full(len(facts), np.nan)
    values = _standardised(facts)
    inputs = np.hstack([np.ones((len(values), 1)), values, values**2])
    folds = np.unique(values, axis=0, return_inverse=True)[1].ravel() % NUM_FOLDS
    scores = np.empty(len(values))
    for fold in range(NUM_FOLDS):
        seen, asked = folds != fold, folds == fold
        gram = inputs[seen].T @ inputs[seen] + _RIDGE * seen.sum() * np.eye(inputs.shape[1])
        scores[asked] = inputs[asked] @ np.linalg.solve(gram, inputs[seen].T @ y_true[seen])
    return scores


def _standardised(facts: Floats) -> Floats:
    """Return columns of mean 0 and deviation 1, their tails pulled in; 0 where unknown."""
    known = np.isfinite(facts)
    values = np.where(known, facts, np.nan)
    columns = []
    for column in values[:, known.any(axis=0)].T:
        low, high = np.nanquantile(column, [_TAIL, 1 - _TAIL])
        pulled = np.clip(column, low, high)
        spread = np.nanstd(pulled)
        columns.append((pulled - np.nanmean(pulled)) / (spread if spread > 0 else 1))
    return np.nan_to_num(np.stack(columns, axis=1)) if columns else np.zeros((len(facts), 0))
