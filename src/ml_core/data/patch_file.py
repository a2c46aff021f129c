"""A file of patches, read as grey levels by row, however it stores them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ml_core.data.chunked_rows import ChunkedRows
from ml_core.data.flat_rows import FlatRows
from ml_core.data.hdf5 import files_behind, open_dataset
from ml_core.data.read_through import FileStamp
from ml_core.data.value_range import BYTES, ValueRange, establish_value_range
from ml_core.errors import DataError

log = logging.getLogger("ml_core.data")

Rows = npt.NDArray[np.int64]
Patches = npt.NDArray[np.uint8]

_NUM_SAMPLED = 64  # patches that decide the value range
_BLOCK_BYTES = 32 * 2**20  # of raw values held at once in a pass over the file


class PatchFile:
    """One HDF5 data set of patches, shape (N, H, W, 3), read as uint8 grey levels by row.

    Nothing stays open after construction: the file is opened at the first read of each process and
    not carried by a pickle. Every failure is a DataError naming the file; so is a file that was
    changed, deleted or replaced after construction.
    """

    def __init__(self, path: str | Path, key: str = "x") -> None:
        self.path = Path(path)
        self.key = key
        self._said_out_of_range = False
        with open_dataset(self.path, key) as dataset:
            _check_shape(dataset, self.path)
            self.shape: tuple[int, int, int, int] = dataset.shape
            self.dtype: np.dtype[Any] = dataset.dtype
            self.layout = _describe_layout(dataset)  # "contiguous", "chunked, gzip", ...
            self.chunk_rows = dataset.chunks[0] if dataset.chunks else 1  # read at once
            offset = _flat_offset(dataset)
            # of what is open, not of what may have taken its name since
            stamp = FileStamp.of_open(dataset.file.id.get_vfd_handle())
            behind = {each: FileStamp.of(each) for each in files_behind(dataset, self.path)}
        self._rows: FlatRows | ChunkedRows = (
            ChunkedRows(self.path, stamp, key, self.chunk_rows, behind)
            if offset is None
            else FlatRows(self.path, stamp, offset, self.shape, self.dtype)
        )
        self.value_range = BYTES if self.is_bytes else self._establish_value_range()
        self.close()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def is_bytes(self) -> bool:
        """Whether values are stored as uint8, so that none can be NaN or out of range."""
        return self.dtype == np.uint8

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def is_flat(self) -> bool:
        """Whether the patches lie one after the other in the file, which is read fastest."""
        return isinstance(self._rows, FlatRows)

    def read(self, rows: Rows) -> Patches:
        """Return grey levels (n, H, W, 3), uint8, of `rows` in any order, repeats allowed.

        Values outside 0..255 are clipped, which is logged once; NaN or Inf raises DataError.
        """
        raw = self.read_raw(rows)
        if raw.dtype == np.uint8:
            return raw
        levels = np.rint(self.value_range.to_levels(raw))
        self._check_finite(levels, rows)
        self._report_out_of_range(levels, rows)
        return np.clip(levels, 0, 255).astype(np.uint8)

    def read_raw(self, rows: Rows) -> npt.NDArray[Any]:
        """Return the stored values (n, H, W, 3) of `rows`, in the file's own dtype and range."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self.path}, of {len(self)}")
        return self._rows.read(rows)

    def blocks(
        self, rows: Rows, num_bytes: int | None = None
    ) -> Iterator[tuple[Rows, npt.NDArray[Any]]]:
        """Yield (rows, stored values) for sorted `rows` in turn, by default 32 MB at a time."""
        for piece in self.pieces(rows, num_bytes):
            yield piece, self.read_raw(piece)

    def pieces(self, rows: Rows, num_bytes: int | None = None) -> Iterator[Rows]:
        """Yield sorted `rows` in turn, as many as fill `num_bytes` (32 MB) with stored values."""
        span = max(1, (num_bytes or _BLOCK_BYTES) // self._row_bytes)
        if self.is_flat:
            cuts = np.arange(span, len(rows), span)
        else:  # whole chunks, so that none is decompressed twice
            span = max(self.chunk_rows, span - span % self.chunk_rows)
            cuts = np.searchsorted(rows, np.arange(span, len(self), span))
        for piece in np.split(rows, cuts):
            if len(piece):
                yield piece

    def close(self) -> None:
        """Close what this process holds open; the next read opens it again."""
        self._rows.close()

    def _establish_value_range(self) -> ValueRange:
        sample = self.read_raw(evenly_spaced(len(self), _NUM_SAMPLED))
        return establish_value_range(sample, str(self.path))

    def _check_finite(self, levels: npt.NDArray[np.float32], rows: Rows) -> None:
        bad = ~np.isfinite(levels).all(axis=(1, 2, 3))
        if bad.any():
            raise DataError(
                f"{self.path}: patch {rows[bad][0]} holds NaN or Inf. Leave such patches out "
                "(data.filter_data: true drops them) or mend the file."
            )

    def _report_out_of_range(self, levels: npt.NDArray[np.float32], rows: Rows) -> None:
        if self._said_out_of_range:
            return
        outside = (levels < 0) | (levels > 255)
        if outside.any():
            self._said_out_of_range = True
            num_patches = int(outside.any(axis=(1, 2, 3)).sum())
            log.warning(
                "%s: %d values outside 0..255 clipped in %d of the %d patches just read, first "
                "patch %d; later ones are clipped without a word.",
                self.path,
                outside.sum(),
                num_patches,
                len(rows),
                rows[outside.any(axis=(1, 2, 3))][0],
            )


def evenly_spaced(num_rows: int, num_wanted: int) -> Rows:
    """Return min(num_wanted, num_rows) rows, sorted: one of each equal stretch of 0..num_rows - 1.

    Which one of its stretch changes from stretch to stretch, the same each time: an even step would
    take one class only of a file whose labels alternate.
    """
    num_wanted = min(num_wanted, num_rows)
    stretch = np.arange(num_wanted, dtype=np.int64)
    start = stretch * num_rows // max(num_wanted, 1)
    width = (stretch + 1) * num_rows // max(num_wanted, 1) - start
    golden = (stretch * 2654435769) % 2**32  # 2**32 over the golden ratio: never in step for long
    return start + (golden * width >> 32)


def _check_shape(dataset: h5py.Dataset, path: Path) -> None:
    where = f"{path}, data set '{dataset.name.lstrip('/')}'"
    if dataset.dtype.kind not in "uif":
        raise DataError(f"{where}: values of type {dataset.dtype} are not pixels; uint8 is usual.")
    if dataset.shape is None or len(dataset.shape) != 4 or dataset.shape[3] != 3:
        raise DataError(f"{where}: shape {dataset.shape}, but patches are (N, H, W, 3).")
    if 0 in dataset.shape:
        raise DataError(f"{where}: shape {dataset.shape} holds no patch.")


def _describe_layout(dataset: h5py.Dataset) -> str:
    if dataset.chunks is not None:
        return f"chunked, {dataset.compression}" if dataset.compression else "chunked"
    if dataset.is_virtual:
        return "virtual"
    if dataset.external:
        return "external"
    return "compact" if _flat_offset(dataset) is None else "contiguous"


def _flat_offset(dataset: h5py.Dataset) -> int | None:
    """Return where the values start in the file, or None when they are not one plain range of it.

    HDF5 gives no offset for chunked, compact, virtual, external and never written data.
    """
    offset = dataset.id.get_offset()
    return None if offset is None else int(offset)
