"""Rows that lie one after the other in a file, read by their numbers."""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.data.file_errors import readable
from ml_core.data.read_through import FileStamp, check_unchanged
from ml_core.errors import DataError

Rows = npt.NDArray[np.int64]


class FlatRows:
    """Rows of one shape and dtype from byte `offset` of `path`, which was at `stamp` when found.

    They are read and not mapped: a file that is cut short under a map kills the process (SIGBUS),
    here it is a DataError. Every call fills memory of its own, so that a batch stays what it was
    for as long as anyone holds it; the allocator gives the same pages out again after that, and a
    pool of buffers was measured to be no faster. What is open is shared by forked children, since
    no read moves a position, and left out of a pickle.
    """

    def __init__(
        self,
        path: Path,
        stamp: FileStamp,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self._path = path
        self._stamp = stamp
        self._offset = offset
        self._row_shape = shape[1:]
        self._dtype = dtype
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._open: tuple[int, weakref.finalize[..., FlatRows]] | None = None  # and its closing
        needed = offset + shape[0] * self._row_bytes
        if stamp.size < needed:
            raise DataError(
                f"{path} is truncated: {stamp.size:,} bytes, where its patches need {needed:,}. "
                "Copy or unpack it again."
            )

    def read(self, rows: Rows) -> npt.NDArray[Any]:
        """Return the values (n, ...) of `rows` in any order; raises DataError.

        Also where the file was cut short, deleted, replaced or written to since it was found, so
        that no batch mixes two states of it.
        """
        values = np.empty((len(rows), *self._row_shape), self._dtype)
        if len(rows) == 0:
            return values
        with readable(self._path):
            descriptor = self._descriptor()
            self._fill(descriptor, values.reshape(-1).view(np.uint8).data, rows)
            check_unchanged(self._path, descriptor, self._stamp)
        return values

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._open is not None:
            self._open[1]()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def _descriptor(self) -> int:
        if self._open is None:
            descriptor = os.open(self._path, os.O_RDONLY)
            self._open = descriptor, weakref.finalize(self, os.close, descriptor)
            check_unchanged(self._path, descriptor, self._stamp)
        return self._open[0]

    def _fill(self, descriptor: int, wanted: memoryview, rows: Rows) -> None:
        """Read each run of consecutive rows by one call."""
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
        ends = [*(starts[1:] * self._row_bytes).tolist(), len(wanted)]
        positions = (self._offset + rows[starts] * self._row_bytes).tolist()
        start = 0
        for position, end in zip(positions, ends, strict=True):
            piece = wanted[start:end]
            num_read = os.preadv(descriptor, (piece,), position)
            while num_read < len(piece):
                piece, position = piece[num_read:], position + num_read
                num_read = os.preadv(descriptor, (piece,), position)
                if num_read == 0:
                    check_unchanged(self._path, descriptor, self._stamp)
                    raise DataError(f"{self._path} ends before its patches do. Copy it again.")
            start = end
