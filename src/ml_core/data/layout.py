"""How PCam's files are named and what they hold: the splits, their labels, which rows are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml_core.data.hdf5 import open_dataset
from ml_core.data.patch_file import PatchFile, Rows, evenly_spaced
from ml_core.errors import DataError, did_you_mean

SPLITS = ("train", "valid", "test")
PATCH_KEY, LABEL_KEY = "x", "y"
AUDIT_DIR = "audit"  # in a data folder: what was found out about the data, and no part of them

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitPaths:
    """The files of one split; the meta file is optional and need not exist."""

    x: Path
    y: Path
    meta: Path


def split_paths(data_path: str | Path, split: str) -> SplitPaths:
    """Return where PCam keeps `split` in the folder `data_path`, whether or not it is there."""
    if split not in SPLITS:
        raise DataError(
            f"unknown split '{split}'; PCam has: {', '.join(SPLITS)}.{did_you_mean(split, SPLITS)}"
        )
    stem = f"camelyonpatch_level_2_split_{split}"
    folder = Path(data_path)
    return SplitPaths(folder / f"{stem}_x.h5", folder / f"{stem}_y.h5", folder / f"{stem}_meta.csv")


def load_labels(y_path: str | Path, key: str = LABEL_KEY) -> Labels:
    """Return labels (N,), int64, of a label file; no patch is read.

    Any integer dtype and the shapes (N,), (N, 1), (N, 1, 1, 1) are taken, and floats that are
    exactly 0 or 1. Raises DataError for other labels, naming them and the first row.
    """
    path = Path(y_path)
    with open_dataset(path, key) as dataset:
        shape, dtype = dataset.shape, dataset.dtype
        if dtype.kind not in "uifb":
            raise DataError(f"{path}: labels of type {dtype}; they must be integers 0 and 1.")
        if not shape or any(extent != 1 for extent in shape[1:]):
            raise DataError(f"{path}: labels of shape {shape}; one per patch is needed, (N,).")
        if shape[0] == 0:
            raise DataError(f"{path}: holds no label, shape {shape}.")
        try:
            raw = dataset[...].reshape(-1)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: labels cannot be read: {error}.") from error
    wrong = (raw != 0) & (raw != 1)
    if wrong.any():
        values = ", ".join(str(value) for value in np.unique(raw[wrong])[:5])
        raise DataError(
            f"{path}: {wrong.sum()} labels are neither 0 nor 1 ({values}), first at row "
            f"{np.flatnonzero(wrong)[0]}. Allowed: 0 (normal) and 1 (tumour)."
        )
    labels: Labels = raw.astype(np.int64)
    return labels


def select_rows(
    num_rows: int, subset: int | None, exclude: Rows | None = None, *, where: str = "the file"
) -> Rows:
    """Return all rows but those in `exclude`, or at most `subset` evenly spaced ones of them."""
    if subset is not None and subset < 1:
        raise DataError(f"a subset of {subset} patches is asked for; at least 1 is needed.")
    kept = np.ones(num_rows, np.bool_)
    if exclude is not None and len(exclude):
        if exclude.max() >= num_rows or exclude.min() < 0:
            raise DataError(
                f"{where}: row {exclude.max():,} is to be left out, but there are {num_rows:,} "
                "patches: these exclusions were made for another file. Audit this one."
            )
        kept[exclude] = False
    rows: Rows = np.flatnonzero(kept)
    if len(rows) == 0:
        raise DataError(f"{where}: all {num_rows:,} patches are to be left out; none remains.")
    return rows[evenly_spaced(len(rows), len(rows) if subset is None else subset)]


def check_same_length(file: PatchFile, labels: Labels, y_path: str | Path) -> None:
    """Raise DataError unless there is one label per patch."""
    if len(file) != len(labels):
        raise DataError(
            f"{file.path} holds {len(file):,} patches but {y_path} {len(labels):,} labels. "
            "They are not of the same split, or one is incomplete."
        )
