"""The measured patches of a predictions table, row by row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions

KEYS = ("split", "index", "label")
_AGAIN = "Audit the data that the run was trained on: ml-core audit."

Ints = npt.NDArray[np.int64]


def join_patches(predictions: Predictions, patches: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the rows of `patches` for `predictions`, in their order: all columns, index 0..N-1.

    Joined on (split, index). `where` names the patches table in messages. Raises RunError where it
    is no such table, lacks the split or some of the patches, has one twice, or has other labels;
    predictions without labels are joined without comparing them.
    """
    _check_columns(patches, where)
    here = patches[patches["split"].astype(str) == predictions.split]
    if here.empty:
        splits = ", ".join(map(str, patches["split"].unique())) or "none"
        raise RunError(
            f"{where} has no patch of split {predictions.split!r}; it has: {splits}. {_AGAIN}"
        )
    index = here["index"].to_numpy(np.int64)
    _check_once(index, predictions.split, where)
    order = np.argsort(index)
    found = np.searchsorted(index, predictions.index, sorter=order).clip(max=len(index) - 1)
    at = order[found]
    _check_there(index[at] == predictions.index, predictions, where)
    rows: pd.DataFrame = here.iloc[at].reset_index(drop=True)
    _check_labels(rows["label"].to_numpy(), predictions, where)
    return rows


def _check_columns(patches: pd.DataFrame, where: str) -> None:
    missing = [name for name in KEYS if name not in patches]
    if missing:
        named = ", ".join(map(str, patches.columns[:12])) or "none"
        raise RunError(
            f"{where} is no patches table: it lacks the columns {', '.join(missing)}; it has "
            f"{named}{', ...' if len(patches.columns) > 12 else ''}. {_AGAIN}"
        )
    index = patches["index"]
    if not pd.api.types.is_integer_dtype(index) or index.isna().any():
        raise RunError(
            f"{where}: column index is of type {index.dtype}; needed is the row of each patch in "
            f"its file, a whole number without gaps. {_AGAIN}"
        )


def _check_once(index: Ints, split: str, where: str) -> None:
    values, counts = np.unique(index, return_counts=True)
    twice = values[counts > 1]
    if len(twice):
        raise RunError(
            f"{where}: {len(twice):,} patches of split {split!r} are there more than "
            f"once{_named(twice)}; a patches table has one row per patch. {_AGAIN}"
        )


def _check_there(found: npt.NDArray[np.bool_], predictions: Predictions, where: str) -> None:
    missing = predictions.index[~found]
    if len(missing):
        raise RunError(
            f"{where} lacks {len(missing):,} of the {len(predictions):,} patches of split "
            f"{predictions.split!r} that were predicted{_named(missing)}: it was made of other "
            f"files, or of a subset. {_AGAIN}"
        )


def _check_labels(labels: npt.NDArray[np.int8], predictions: Predictions, where: str) -> None:
    if predictions.y_true is None:
        return
    other = np.flatnonzero(labels != predictions.y_true)
    if len(other):
        first = other[0]
        raise RunError(
            f"{where}: {len(other):,} of the {len(predictions):,} patches of split "
            f"{predictions.split!r} have another label than in the predictions, the first at index "
            f"{predictions.index[first]}: {labels[first]} there, {predictions.y_true[first]} in "
            f"the predictions. The label file has changed, or the two are of other data. {_AGAIN}"
        )


def _named(index: Ints) -> str:
    return f" (index {', '.join(map(str, index[:5]))}{', ...' if len(index) > 5 else ''})"
