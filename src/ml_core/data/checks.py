"""What must hold of the splits before any compute is spent on them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ml_core.data.hdf5 import open_file
from ml_core.data.layout import (
    Labels,
    SplitPaths,
    check_same_length,
    load_labels,
    select_rows,
    split_paths,
)
from ml_core.data.patch_file import PatchFile, Rows, evenly_spaced
from ml_core.data.survey import Survey, survey_patches
from ml_core.data.versions.digests import FileDigest, digest_as_read
from ml_core.errors import DataError

if TYPE_CHECKING:
    from ml_core.data.pcam import PCAMDataset

# Splits that are learned from or chosen by: with one class only, neither is possible.
_NEED_BOTH_CLASSES = ("train", "valid")


@dataclass(frozen=True)
class SplitRecord:
    """One split as it was found and as it will be used; kept in the run's record."""

    split: str
    x_path: str
    y_path: str
    x_sha256: str  # of the whole file: the identity of the data
    y_sha256: str
    num_rows: int  # in the file
    num_patches: int  # to be used: after exclusions, max_patches and filter_data
    num_positive: int  # of those to be used
    num_excluded: int  # left out by exclusions
    num_filtered: int  # dropped by filter_data
    max_patches: int | None
    shape: tuple[int, int, int]  # of a patch: height, width, channels
    dtype: str
    layout: str
    value_range: str

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}


def check_splits(
    data_path: str | Path,
    splits: Sequence[str] = ("train", "valid"),
    *,
    patch_size: tuple[int, int] | None = (96, 96),
    filter_data: bool = False,
    max_patches: int | None = None,
    exclude: Mapping[str, Rows] | None = None,
    hashes: Mapping[str, tuple[str, str]] | None = None,
) -> list[SplitRecord]:
    """Return a record per split, or raise DataError at the first thing that would spoil a run.

    Checked: files, keys, shapes, lengths, labels, both classes in train and valid, value range,
    no NaN, Inf or value outside the range among the patches that `exclude`, `filter_data` and
    `max_patches` leave, and that no two splits are the same file. Files of another dtype than uint8
    are read whole, in blocks of bounded memory; every file is hashed, unless `hashes` has it.
    """
    hashes = hash_splits(data_path, splits) if hashes is None else hashes
    records = [
        _check_split(
            split,
            split_paths(data_path, split),
            hashes[split],
            patch_size,
            filter_data,
            max_patches,
            (exclude or {}).get(split),
        )
        for split in splits
    ]
    _check_not_the_same(records)
    return records


def hash_splits(data_path: str | Path, splits: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the SHA-256 of the patch file and of the label file of each split.

    Raises DataError for a file that is missing or cannot be read.
    """
    hashes = {}
    for split in splits:
        paths = split_paths(data_path, split)
        for path in (paths.x, paths.y):
            open_file(path).close()  # says in words what is wrong with it, before it is all read
        hashes[split] = (hash_file(paths.x), hash_file(paths.y))
    return hashes


def digest_splits(
    data_path: str | Path, splits: Sequence[str]
) -> dict[str, tuple[FileDigest, FileDigest]]:
    """Return the digests of the patch file and of the label file of each split, in one reading.

    With a digest per 1,024 rows where the values lie flat in the file. Raises DataError for a file
    that is missing or cannot be read.
    """
    paths = {split: split_paths(data_path, split) for split in splits}
    return {split: (digest_as_read(at.x), digest_as_read(at.y)) for split, at in paths.items()}


def sha256_of(
    digests: Mapping[str, tuple[FileDigest, FileDigest]],
) -> dict[str, tuple[str, str]]:
    """Return what `hash_splits` would, of what `digest_splits` gave."""
    return {split: (x.sha256, y.sha256) for split, (x, y) in digests.items()}


def _check_split(
    split: str,
    paths: SplitPaths,
    hashes: tuple[str, str],
    patch_size: tuple[int, int] | None,
    filter_data: bool,
    max_patches: int | None,
    exclude: Rows | None,
) -> SplitRecord:
    labels = load_labels(paths.y)
    file = PatchFile(paths.x)
    check_same_length(file, labels, paths.y)
    if patch_size is not None and file.shape[1:3] != patch_size:
        raise DataError(
            f"{paths.x}: patches of {file.shape[1]} x {file.shape[2]} pixels, where the model "
            f"takes {patch_size[0]} x {patch_size[1]} (data.input_shape)."
        )
    chosen = select_rows(len(file), max_patches, exclude, where=str(paths.x))
    used = _check_values(file, chosen, filter_data)
    _check_classes(paths.y, split, labels[used], len(labels))
    return SplitRecord(
        split=split,
        x_path=str(paths.x),
        y_path=str(paths.y),
        x_sha256=hashes[0],
        y_sha256=hashes[1],
        num_rows=len(file),
        num_patches=len(used),
        num_positive=int(labels[used].sum()),
        num_excluded=0 if exclude is None else len(exclude),
        num_filtered=len(chosen) - len(used),
        max_patches=max_patches,
        shape=file.shape[1:],
        dtype=str(file.dtype),
        layout=file.layout,
        value_range=str(file.value_range),
    )


def _check_values(file: PatchFile, rows: Rows, filter_data: bool) -> Rows:
    """Return the rows to be used; raises DataError when one of them is damaged."""
    if file.is_bytes and not filter_data:
        return rows  # a byte is always a grey level
    survey = survey_patches(file, rows)
    keep = survey.is_informative if filter_data else np.ones(len(rows), np.bool_)
    if not keep.any():
        raise DataError(f"{file.path}: data.filter_data leaves none of {len(rows):,} patches.")
    bad = keep & ~(survey.is_finite & survey.is_in_range)
    if bad.any():
        raise DataError(_describe_damage(file, survey, bad, filter_data))
    return rows[keep]


def _describe_damage(
    file: PatchFile, survey: Survey, bad: npt.NDArray[np.bool_], filter_data: bool
) -> str:
    kinds = {
        "hold NaN or Inf": bad & ~survey.is_finite,
        f"hold values outside {file.value_range}": bad & survey.is_finite,
    }
    seen = "; ".join(
        f"{where.sum():,} {what}, first at {_first(survey.rows[where])}"
        for what, where in kinds.items()
        if where.any()
    )
    message = f"{file.path}: {bad.sum():,} of {len(bad):,} patches are damaged: {seen}."
    if filter_data:
        return f"{message} data.filter_data did not drop them; mend them or leave them out."
    num_left = int((bad & survey.is_informative).sum())
    dropped = f"{bad.sum() - num_left:,} of these" if num_left else "all of these"
    rest = f" The other {num_left:,} must be mended or left out." if num_left else ""
    return (
        f"{message} data.filter_data: true drops patches whose mean is not strictly between 0 and "
        f"255, NaN included: {dropped}.{rest}"
    )


def _first(rows: Rows) -> str:
    return ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")


def _check_classes(y_path: Path, split: str, used: Labels, num_rows: int) -> None:
    present = np.unique(used)
    if split in _NEED_BOTH_CLASSES and len(present) == 1:
        raise DataError(
            f"{y_path}: the {len(used):,} patches used of {num_rows:,} all have label "
            f"{present[0]}; {split} needs both, 0 (normal) and 1 (tumour)."
        )


def _check_not_the_same(records: Sequence[SplitRecord]) -> None:
    seen: dict[str, SplitRecord] = {}
    for record in records:
        other = seen.setdefault(record.x_sha256, record)
        if other is not record:
            raise DataError(
                f"{record.x_path} has the same content as {other.x_path}: {record.split} would "
                f"be scored on the patches of {other.split}. Get the true file again."
            )


def hash_file(path: str | Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file's bytes, in hexadecimal; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def channel_stats(
    dataset: PCAMDataset, max_patches: int = 2000
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of R, G and B on the scale 0..1.

    From at most `max_patches` evenly spaced patches, summed as integers, so exactly repeatable.
    """
    positions = evenly_spaced(len(dataset), max_patches)
    total = np.zeros(3, np.int64)
    total_squares = np.zeros(3, np.int64)
    num_pixels = 0
    for piece in np.array_split(positions, -(-len(positions) // 256)):
        pixels = dataset.file.read(dataset.indices[piece]).reshape(-1, 3)
        num_pixels += len(pixels)
        for channel in range(3):
            counts = np.bincount(pixels[:, channel], minlength=256)
            total[channel] += counts @ np.arange(256)
            total_squares[channel] += counts @ np.arange(256) ** 2
    mean = total / num_pixels
    std = np.sqrt(np.maximum(total_squares / num_pixels - mean**2, 0))
    return _triple(mean / 255), _triple(std / 255)


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
