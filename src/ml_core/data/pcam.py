"""PatchCamelyon: what its files are called, what they hold, and the data set made of a split."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ml_core.data.hdf5 import open_dataset
from ml_core.data.patch_file import PatchFile, Rows, evenly_spaced
from ml_core.data.survey import survey_patches
from ml_core.errors import DataError, did_you_mean

log = logging.getLogger("ml_core.data")

SPLITS = ("train", "valid", "test")
PATCH_KEY, LABEL_KEY = "x", "y"

Labels = npt.NDArray[np.int64]
Transform = Callable[[npt.NDArray[np.uint8]], Any]


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


def load_labels(y_path: str | Path) -> Labels:
    """Return labels (N,), int64, of a label file; no patch is read.

    Any integer dtype and the shapes (N,), (N, 1), (N, 1, 1, 1) are taken, and floats that are
    exactly 0 or 1. Raises DataError for other labels, naming them and the first row.
    """
    path = Path(y_path)
    with open_dataset(path, LABEL_KEY) as dataset:
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


class PatchBatch:
    """A batch read at once that can also be taken apart into (image, label) items.

    The items suit torch's default_collate; taken whole, no work is done per item.
    """

    def __init__(self, images: Tensor | list[Any], labels: Tensor, index: Tensor) -> None:
        self.images = images  # (B, 3, H, W) uint8, or what a transform made of each patch
        self.labels = labels  # (B,) long
        self.index = index  # (B,) long, rows in the source file

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, Tensor]:
        return self.images[i], self.labels[i]

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return zip(self.images, self.labels, strict=True)


class PCAMDataset(Dataset[tuple[Any, Tensor]]):
    """The patches of one split: item i is (image (3, H, W) uint8, label 0-d long).

    `.indices` are the rows of the source file that are kept, `.labels` their labels. With
    `transform`, an item's image is what it returns for the (H, W, 3) uint8 array. `filter_data`
    drops patches whose mean is not strictly between 0 and 255, in one pass over the file at
    construction. `subset` first takes at most so many rows, evenly spaced, whatever their labels.
    Raises DataError for files that are missing, damaged, or do not belong together.
    """

    def __init__(
        self,
        x_path: str | Path,
        y_path: str | Path,
        transform: Transform | None = None,
        filter_data: bool = False,
        *,
        subset: int | None = None,
    ) -> None:
        self.file = PatchFile(x_path, PATCH_KEY)
        self.transform = transform
        labels = load_labels(y_path)
        check_same_length(self.file, labels, y_path)
        if not (self.file.is_mapped and self.file.is_bytes):
            _say_slow(self.file.path, f"{self.file.layout}, {self.file.dtype}")
        rows = select_rows(len(self.file), subset)
        if filter_data:
            rows = rows[survey_patches(self.file, rows).is_informative]
            if len(rows) == 0:
                raise DataError(
                    f"{self.file.path}: filter_data leaves no patch: the mean of each is 0 or "
                    "less, 255 or more, or NaN."
                )
        self.indices: Rows = rows
        self.labels: Labels = labels[rows]

    @property
    def num_rows(self) -> int:
        """Patches in the source file, kept or not: every index is below it."""
        return len(self.file)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Any, Tensor]:
        position = operator.index(i)
        if not -len(self) <= position < len(self):
            raise IndexError(f"patch {position} of a data set of {len(self)}")
        return self.__getitems__([position % len(self)])[0]

    def __getitems__(self, positions: Sequence[int] | Rows) -> PatchBatch:
        """Return many items, read together; sorted positions are read fastest."""
        chosen = np.asarray(positions, dtype=np.int64)
        rows = self.indices[chosen]
        patches = self.file.read(rows)  # (B, H, W, 3)
        images: Tensor | list[Any]
        if self.transform is not None:
            images = [self.transform(patch) for patch in patches]
        else:
            images = torch.from_numpy(patches).permute(0, 3, 1, 2)
        return PatchBatch(images, torch.from_numpy(self.labels[chosen]), torch.from_numpy(rows))


def select_rows(num_rows: int, subset: int | None) -> Rows:
    """Return all rows, or at most `subset` evenly spaced ones."""
    if subset is not None and subset < 1:
        raise DataError(f"a subset of {subset} patches is asked for; at least 1 is needed.")
    return evenly_spaced(num_rows, num_rows if subset is None else subset)


def check_same_length(file: PatchFile, labels: Labels, y_path: str | Path) -> None:
    """Raise DataError unless there is one label per patch."""
    if len(file) != len(labels):
        raise DataError(
            f"{file.path} holds {len(file):,} patches but {y_path} {len(labels):,} labels. "
            "They are not of the same split, or one is incomplete."
        )


@cache  # once per file and process, however many data sets are made of it
def _say_slow(path: Path, storage: str) -> None:
    log.warning(
        "%s: stored as %s, which is read more slowly than flat uint8. To read it by mapping, "
        "store x as uint8, contiguous: no chunks, no compression.",
        path,
        storage,
    )
