"""Where the stored bytes of patches lie in their file, to read or to forget them as they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import h5py
import numpy as np

from ml_core.data.hdf5 import open_dataset
from ml_core.data.patch_file import PatchFile, Rows


class ByteRange(NamedTuple):
    """Bytes of a file, from `start` on."""

    start: int
    size: int


class ByteRanges:
    """Finds the bytes of the rows of `file`, whose patches lie in that one file.

    Flat rows are bytes of their own; of chunks, compressed or not, it is the whole chunk. Raises
    LookupError for a data set that is neither: virtual, external, compact.
    """

    def __init__(self, file: PatchFile) -> None:
        with open_dataset(file.path, file.key) as dataset:
            self._row_bytes = int(np.prod(file.shape[1:])) * file.dtype.itemsize
            self._offset = dataset.id.get_offset()
            self._chunks = None if dataset.chunks is None else _chunks_by_row(dataset)
        self._chunk_rows = file.chunk_rows
        if self._offset is None and self._chunks is None:
            raise LookupError(f"{file.path} is stored as {file.layout}")

    def of(self, rows: Rows) -> list[ByteRange]:
        """Return what must be read for `rows`, each byte once, in order; neighbours joined."""
        if self._chunks is None:
            assert self._offset is not None
            starts = self._offset + np.unique(rows) * self._row_bytes
            return _joined([ByteRange(start, self._row_bytes) for start in starts.tolist()])
        numbers = np.unique(rows // self._chunk_rows).tolist()
        return _joined(sorted(each for number in numbers for each in self._chunks[number]))


def read_ranges(descriptor: int, ranges: Sequence[ByteRange]) -> int:
    """Read `ranges` into memory of their own, and return how many bytes that were."""
    into = np.empty(sum(each.size for each in ranges), np.uint8).data
    done = 0
    for start, size in ranges:
        done += os.preadv(descriptor, (into[done : done + size],), start)
    return done


def _chunks_by_row(dataset: h5py.Dataset) -> list[list[ByteRange]]:
    """Return the stored chunks of each chunk of rows; they may cut the patches too."""
    found: list[list[ByteRange]] = [[] for _ in range(-(-dataset.shape[0] // dataset.chunks[0]))]

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        row = chunk.chunk_offset[0] // dataset.chunks[0]
        found[row].append(ByteRange(chunk.byte_offset, chunk.size))

    dataset.id.chunk_iter(note)  # one by one they cost a search each
    return found


def _joined(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    joined = list[ByteRange]()
    for each in ranges:
        if joined and joined[-1].start + joined[-1].size == each.start:
            joined[-1] = ByteRange(joined[-1].start, joined[-1].size + each.size)
        else:
            joined.append(each)
    return joined
