"""Rows of an HDF5 data set that only HDF5 can decode, read by their numbers."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5s, h5t

from ml_core.data.hdf5 import decodable, find_dataset, open_file
from ml_core.data.read_through import FileStamp, check_unchanged
from ml_core.errors import DataError

Rows = npt.NDArray[np.int64]


class ChunkedRows:
    """Rows of data set `key` of `path`, which was at `stamp` when found, `chunk_rows` to a chunk.

    `behind` are the stamps of other files that hold values of it: where one of them has gone or
    become shorter HDF5 reads zeros, without a word.

    The handle is made at the first read of each process, left out of a pickle and closed before a
    fork: HDF5 keeps positions and caches in the process, and a child that shared them could read
    another patch than the one it asked for.
    """

    def __init__(
        self,
        path: Path,
        stamp: FileStamp,
        key: str,
        chunk_rows: int,
        behind: Mapping[Path, FileStamp] | None = None,
    ) -> None:
        self._path = path
        self._stamp = stamp
        self._key = key
        self._chunk_rows = chunk_rows
        self._behind = dict(behind or {})
        self._handle: h5py.File | None = None
        self._found: h5py.Dataset | None = None  # in it: opening it anew costs as much as 20 chunks
        self._handle_pid = 0

    def read(self, rows: Rows) -> npt.NDArray[Any]:
        """Return the values (n, ...) of `rows` in any order; raises DataError as FlatRows does.

        Each chunk is decoded once, by one slice: h5py's own fancy indexing goes row by row, and one
        selection of all rows takes HDF5 10 to 100 times as long.
        """
        dataset = self._dataset()
        wanted, positions = np.unique(rows, return_inverse=True)
        with decodable(self._path, f"{len(wanted):,} of its patches, {dataset.shape[1:]},"):
            values = np.empty((len(wanted), *dataset.shape[1:]), dataset.dtype)
        try:
            self._fill(values, dataset, wanted)
        except DataError:
            self._check_unchanged()  # says it better, where that is why
            raise
        self._check_unchanged()
        return values if np.array_equal(wanted, rows) else values[positions]

    def _fill(self, values: npt.NDArray[Any], dataset: h5py.Dataset, rows: Rows) -> None:
        """Decode `rows`, sorted without repeats, into `values`."""
        stored, kind, patch = dataset.id, h5t.py_create(values.dtype), values.shape[1:]
        space, corner = stored.get_space(), (0,) * len(patch)
        slabs: dict[int, h5s.SpaceID] = {}  # by number of rows: making one costs as much as a row
        piece = rows
        with decodable(self._path, lambda: f"what it holds of patches {piece[0]} to {piece[-1]}"):
            for start, stop in self._pieces(rows):
                piece = rows[start:stop]
                first, count = int(piece[0]), int(piece[-1] - piece[0]) + 1
                is_all = count == stop - start
                slab = values[start:stop] if is_all else np.empty((count, *patch), values.dtype)
                if count not in slabs:
                    slabs[count] = h5s.create_simple(slab.shape)
                space.select_hyperslab((first, *corner), slab.shape)
                stored.read(slabs[count], space, slab, kind)
                if not is_all:  # clip: in place, and not by way of a buffer
                    np.take(slab, piece - first, axis=0, out=values[start:stop], mode="clip")

    def _pieces(self, rows: Rows) -> Iterator[tuple[int, int]]:
        """Yield where the rows of each chunk start and stop among sorted `rows`."""
        next_chunk = np.flatnonzero(np.diff(rows // self._chunk_rows)) + 1
        return pairwise([0, *next_chunk.tolist(), len(rows)]) if len(rows) else iter(())

    def close(self) -> None:
        """Close what this process holds open; the next read opens it again."""
        if self._handle is not None and self._handle_pid == os.getpid():
            self._handle.close()
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_found": None}

    def _dataset(self) -> h5py.Dataset:
        if self._handle is None or self._handle_pid != os.getpid():
            self._handle, self._found = open_file(self._path), None
            self._handle_pid = os.getpid()
            _open_files.add(self)
            self._check_unchanged()
        if self._found is None:
            self._found = find_dataset(self._handle, self._path, self._key)
        return self._found

    def _check_unchanged(self) -> None:
        assert self._handle is not None
        check_unchanged(self._path, self._handle.id.get_vfd_handle(), self._stamp)
        for path, stamp in self._behind.items():
            if FileStamp.of(path) != stamp:
                raise DataError(
                    f"{path}, in which values of {self._path} lie, was changed or replaced after "
                    "its reading had begun. Put it back as it was and start again."
                )


_open_files: weakref.WeakSet[ChunkedRows] = weakref.WeakSet()


def _close_before_fork() -> None:
    for file in list(_open_files):
        file.close()
    _open_files.clear()


os.register_at_fork(before=_close_before_fork)
