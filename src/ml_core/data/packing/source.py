"""Where patches to be packed come from: image files, one HDF5 file, or a whole PCam folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from PIL import Image

from ml_core.data.hdf5 import open_dataset
from ml_core.data.image_files import FORMATS, IMAGE_SUFFIXES, read_image
from ml_core.data.layout import Labels
from ml_core.data.packing.label_table import LabelTable
from ml_core.data.patch_file import Patches, PatchFile, Rows
from ml_core.errors import DataError, did_you_mean

_BLOCK_BYTES = 8 * 2**20  # of stored values a thread holds at once

Damage = Mapping[int, str]  # why a row cannot be packed, by row of the source


class PatchSource(Protocol):
    """Patches by row, as grey levels that were checked; threads read at the same time."""

    name: str  # for messages
    shape: tuple[int, int, int, int]  # (N, H, W, 3)

    def blocks(self, rows: Rows) -> Sequence[Rows]:
        """Return rising `rows` cut into pieces that are read well at once."""
        ...

    def read(self, rows: Rows) -> tuple[Patches, Damage]:
        """Return the sound patches of `rows`, (m, H, W, 3), and what is wrong with the others."""
        ...

    def file_of(self, row: int) -> str:
        """Return the name of the file that `row` lies in."""
        ...

    def name_of(self, row: int) -> str:
        """Return what tells a user which patch `row` is."""
        ...


@dataclass(frozen=True)
class Part:
    """What is to become one split; `labels` and `meta` have an entry per row of `rows`."""

    split: str
    source: PatchSource
    rows: Rows  # of the source, rising
    labels: Labels
    meta: pd.DataFrame | None  # columns of PCam's meta file, as text


class Hdf5Source:
    """The patches of one HDF5 file, however they are stored."""

    def __init__(self, path: Path, key: str) -> None:
        self.file = PatchFile(path, key)
        self.name = str(path)
        self.shape = self.file.shape
        with open_dataset(path, key) as dataset:
            self._chunk_rows = dataset.chunks[0] if dataset.chunks else 1
        self.file.read_raw(np.array([0]))  # opens it before threads do

    def blocks(self, rows: Rows) -> Sequence[Rows]:
        row_bytes = int(np.prod(self.shape[1:])) * self.file.dtype.itemsize
        span = max(1, _BLOCK_BYTES // row_bytes)
        # whole chunks, so that none is decompressed twice
        span = max(self._chunk_rows, span - span % self._chunk_rows)
        cuts = np.searchsorted(rows, np.arange(span, len(self.file), span))
        return [piece for piece in np.split(rows, cuts) if len(piece)]

    def read(self, rows: Rows) -> tuple[Patches, Damage]:
        raw = self.file.read_raw(rows)
        if raw.dtype == np.uint8:
            return raw, {}
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf and is named
            levels = self.file.value_range.to_levels(raw)
        np.rint(levels, out=levels)
        flat = levels.reshape(len(levels), -1)
        low, high = flat.min(axis=1), flat.max(axis=1)  # NaN if one value is
        is_finite = np.isfinite(low) & np.isfinite(high)
        is_sound = is_finite & (low >= 0) & (high <= 255)
        outside = f"holds values outside {self.file.value_range}"
        damage = {
            int(row): outside if finite else "holds NaN or Inf"
            for row, finite in zip(rows[~is_sound], is_finite[~is_sound], strict=True)
        }
        return levels[is_sound].astype(np.uint8), damage

    def file_of(self, row: int) -> str:
        return self.file.path.name

    def name_of(self, row: int) -> str:
        return str(row)


class ImageSource:
    """Image files of one size, one patch each; `size` (H, W) is that of the first unless given."""

    def __init__(self, folder: Path, files: Sequence[str], size: tuple[int, int] | None) -> None:
        self.folder = folder
        self.files = files
        self.name = str(folder)
        height, width = size or self._first_size()
        self.shape = (len(files), height, width, 3)

    def blocks(self, rows: Rows) -> Sequence[Rows]:
        span = max(1, _BLOCK_BYTES // int(np.prod(self.shape[1:])))
        return [rows[start : start + span] for start in range(0, len(rows), span)]

    def read(self, rows: Rows) -> tuple[Patches, Damage]:
        patches = np.empty((len(rows), *self.shape[1:]), np.uint8)
        num_sound = 0
        damage: dict[int, str] = {}
        for row in rows.tolist():
            path = self.folder / self.files[row]
            try:
                patches[num_sound] = read_image(path, (self.shape[1], self.shape[2]))
                num_sound += 1
            except DataError as error:
                damage[row] = self._explain(path, error)
        return patches[:num_sound], damage

    def file_of(self, row: int) -> str:
        return self.files[row]

    def name_of(self, row: int) -> str:
        return f"{row} ({self.files[row]})"

    def _first_size(self) -> tuple[int, int]:
        for name in self.files:
            try:
                return _image_size(self.folder / name)
            except DataError:
                continue
        raise DataError(f"{self.folder}: none of {len(self.files):,} images can be read.")

    def _explain(self, path: Path, error: DataError) -> str:
        """Return what is wrong with an image, the same words for all images of one wrong size."""
        height, width = self.shape[1:3]
        try:
            seen = _image_size(path)
        except DataError:
            seen = (height, width)
        if seen != (height, width):
            return f"has {seen[1]} x {seen[0]} pixels where {width} x {height} are wanted"
        return str(error).removeprefix(f"{path} ").removesuffix(".")


def _image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) as the header says; raises DataError."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception as error:  # Pillow's decoders let many kinds of error through
        raise DataError(f"{path} cannot be read: {error}.") from error


def list_images(folder: Path) -> set[str]:
    """Return the image files under `folder`, as paths relative to it with "/"."""
    found = set()
    for parent, _, names in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        found |= {(inside / n).as_posix() for n in names if n.lower().endswith(IMAGE_SUFFIXES)}
    return found


def check_files_are_there(table: LabelTable, folder: Path, there: set[str]) -> None:
    """Raise DataError unless every file that the csv names lies in the folder."""
    missing = [(row, name) for row, name in enumerate(table.files) if name not in there]
    missing = [(row, name) for row, name in missing if not (folder / name).is_file()]
    if missing:
        row, name = missing[0]
        raise DataError(
            f"{folder}: {len(missing):,} of {len(table.files):,} files of the csv are missing, "
            f"first '{name}' of row {row}.{did_you_mean(name, there)} Names are relative to the "
            "folder and have their ending; copy the missing files or take their rows out."
        )
