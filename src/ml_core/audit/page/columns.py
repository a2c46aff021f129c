"""Which statistics of a patch the page shows, and what it calls them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

# Column of the table -> what a reader calls it, where extreme patches are worth a look.
OUTLIER_STATISTICS = {
    "mean_r": "mean red",
    "mean_b": "mean blue",
    "std_luma": "contrast",
    "haematoxylin": "haematoxylin",
    "eosin": "eosin",
    "tissue_share": "tissue share",
    "focus": "focus",
    "blockiness": "JPEG blockiness",
}


def shown_values(patches: pd.DataFrame, column: str) -> Floats:
    """Return a column of the table as the page shows it: focus, which spans decades, as a log."""
    values = patches[column].to_numpy(np.float64, na_value=math.nan)
    return np.log10(1 + np.maximum(values, 0)) if column == "focus" else values


def split_slices(patches: pd.DataFrame, splits: Iterable[str]) -> dict[str, slice]:
    """Return where the rows of each split lie in the table, in which splits follow each other.

    `splits` come first, an empty slice for one without rows; then any others of the table.
    """
    names = patches["split"].astype(str).to_numpy()
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]]).tolist() if len(names) else []
    found = {
        str(names[start]): slice(start, stop) for start, stop in pairwise([*starts, len(names)])
    }
    return {split: found.get(split, slice(0, 0)) for split in [*splits, *found]}
