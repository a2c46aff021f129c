"""Digests of a file, and of the values inside an HDF5 file, in one pass over its bytes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from ml_core.data.hdf5 import decodable, files_behind, open_file
from ml_core.data.hdf5_holes import check_no_holes
from ml_core.data.read_through import read_through
from ml_core.errors import DataError

ROWS_PER_GROUP = 1024
_SLAB_BYTES = 32 * 2**20  # of decoded values held at once
_HDF5_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class DatasetDigest:
    """The identity of one HDF5 data set: of its values, whatever chunks or compression hold them.

    `groups`: SHA-256 over the values of each 1,024 rows (patches, labels) in turn, row by row, as
    stored in `dtype`, byte order included. `digest`: SHA-256 over the line "DTYPE SHAPE" and a
    line per group.
    """

    shape: tuple[int, ...]
    dtype: str  # "uint8"; ">f4" where the byte order is not this machine's
    digest: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class FileDigest:
    """The identity of one file.

    `content` is what a program reads: made of the data sets' digests for an HDF5 file, so that
    repacking it changes nothing, and `sha256` for any other. Attributes of an HDF5 file are not
    in it; where a data set holds text or records, `content` is `sha256` too.
    """

    size: int
    sha256: str
    md5: str
    content: str
    datasets: Mapping[str, DatasetDigest] = field(default_factory=dict)


def digest_file(path: Path) -> FileDigest:
    """Return the digests of `path`, from one reading where the values lie flat in the file.

    Chunked or compressed data sets are read a second time, through HDF5, at most 32 MiB (or one
    row of chunks) at once. Raises DataError for a file that cannot be read, changes meanwhile, or
    has an HDF5 name and is none.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    if path.suffix.lower() not in _HDF5_SUFFIXES:
        stamp = read_through(path, [sha256, md5])
        return FileDigest(stamp.size, sha256.hexdigest(), md5.hexdigest(), sha256.hexdigest())
    with open_file(path) as file, decodable(path):
        datasets, is_complete = _numeric_datasets(file)
        groups = {name: _groups_of(dataset, path) for name, dataset in datasets.items()}
        flat = [each for each in groups.values() if each.is_flat]
        stamp = read_through(path, [sha256, md5, *flat])
        for name, dataset in datasets.items():
            if not groups[name].is_flat:
                _feed_decoded(dataset, groups[name], path)
        digests = {
            name: _dataset_digest(dataset, groups[name]) for name, dataset in datasets.items()
        }
    content = "".join(f"{name} {each.digest}\n" for name, each in digests.items())
    return FileDigest(
        stamp.size,
        sha256.hexdigest(),
        md5.hexdigest(),
        _sha256(content) if digests and is_complete else sha256.hexdigest(),
        digests,
    )


def digest_as_read(path: Path) -> FileDigest:
    """Return the SHA-256 of `path` and the digests of the data sets that lie flat in it.

    What a training can afford to know of its data: one reading, nothing decompressed, no MD5
    (`md5` is empty, `content` is `sha256`). Raises DataError as `digest_file` does, and where
    values lie in other files, a change of which would go unnoticed.
    """
    sha256 = hashlib.sha256()
    with open_file(path) as file, decodable(path):
        datasets, _ = _numeric_datasets(file)
        for name, dataset in datasets.items():
            if elsewhere := files_behind(dataset, path):
                raise DataError(
                    f"{path}: values of its data set '{name}' lie in {elsewhere[0]}, whose change "
                    "would go unnoticed. Make one file of it: ml-core data pack "
                    f"{path.parent} FOLDER"
                )
        groups = {name: _groups_of(dataset, path) for name, dataset in datasets.items()}
        flat = {name: each for name, each in groups.items() if each.is_flat}
        stamp = read_through(path, [sha256, *flat.values()])
        digests = {name: _dataset_digest(datasets[name], each) for name, each in flat.items()}
    return FileDigest(stamp.size, sha256.hexdigest(), "", sha256.hexdigest(), digests)


class _Groups:
    """Digests of `group_bytes` at a time of one range of a stream fed from its start."""

    def __init__(self, start: int | None, num_bytes: int, group_bytes: int) -> None:
        self.is_flat = start is not None  # whether the stream is the file itself
        self._skip = start or 0
        self._left = num_bytes
        self._group_bytes = self._room = group_bytes
        self._hash = hashlib.sha256()
        self.digests: list[str] = []

    def update(self, block: bytes | memoryview, /) -> None:
        view = memoryview(block)
        skipped = min(self._skip, len(view))
        self._skip -= skipped
        view = view[skipped : skipped + self._left]
        self._left -= len(view)
        while len(view):
            here = view[: self._room]
            self._hash.update(here)
            view = view[len(here) :]
            self._room -= len(here)
            if self._room == 0 or self._left == len(view) == 0:
                self.digests.append(self._hash.hexdigest())
                self._hash, self._room = hashlib.sha256(), self._group_bytes


def _numeric_datasets(file: h5py.File) -> tuple[dict[str, h5py.Dataset], bool]:
    """Return the data sets that are plain arrays, by name, and whether that is all of them."""
    found: dict[str, h5py.Dataset] = {}
    others: list[str] = []

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.dtype.kind in "biuf" and item.shape:
            found[name] = item
        else:
            others.append(name)

    file.visititems(visit)
    return dict(sorted(found.items())), not others


def _groups_of(dataset: h5py.Dataset, path: Path) -> _Groups:
    row_bytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    num_bytes = dataset.shape[0] * row_bytes
    start = dataset.id.get_offset()  # None where the values are no plain range of the file
    if start is not None and start + num_bytes > path.stat().st_size:
        raise DataError(
            f"{path} is truncated: its data set '{dataset.name.lstrip('/')}' needs "
            f"{start + num_bytes:,} bytes. Copy or unpack it again."
        )
    return _Groups(start, num_bytes, ROWS_PER_GROUP * row_bytes)


def _feed_decoded(dataset: h5py.Dataset, groups: _Groups, path: Path) -> None:
    check_no_holes(dataset, path)
    row_bytes = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    name = dataset.name.lstrip("/")
    chunk_rows = dataset.chunks[0] if dataset.chunks else 1
    span = max(1, _SLAB_BYTES // row_bytes)
    span = max(chunk_rows, span - span % chunk_rows)  # whole chunks, so that none is decoded twice
    for start in range(0, len(dataset), span):
        last = min(start + span, len(dataset)) - 1
        with decodable(path, f"what it holds of rows {start:,} to {last:,} of '{name}'"):
            slab = dataset[start : start + span]
        groups.update(memoryview(slab.reshape(-1).view(np.uint8)))


def _dataset_digest(dataset: h5py.Dataset, groups: _Groups) -> DatasetDigest:
    shape = tuple(int(extent) for extent in dataset.shape)
    lines = [f"{dataset.dtype} {shape}", *groups.digests]
    return DatasetDigest(
        shape, str(dataset.dtype), _sha256("".join(f"{line}\n" for line in lines)),
        tuple(groups.digests),
    )  # fmt: skip


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
