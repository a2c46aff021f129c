"""How the bytes of a patch file are reached: mapped where they lie flat, by chunks elsewhere."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ml_core.data.hdf5 import find_dataset, open_dataset, open_file
from ml_core.data.value_range import BYTES, ValueRange, establish_value_range
from ml_core.errors import DataError

log = logging.getLogger("ml_core.data")

Rows = npt.NDArray[np.int64]
Patches = npt.NDArray[np.uint8]

_NUM_SAMPLED = 64  # patches that decide the value range
_BLOCK_BYTES = 32 * 2**20  # of raw values held at once in a pass over the file


class PatchFile:
    """One HDF5 data set of patches, shape (N, H, W, 3), read as uint8 grey levels by row.

    Nothing stays open after construction: the map or handle is made at the first read of each
    process, dropped when pickled, and an HDF5 handle is closed before a fork. Every failure is a
    DataError naming the file.
    """

    def __init__(self, path: str | Path, key: str = "x") -> None:
        self.path = Path(path)
        self.key = key
        self._map: npt.NDArray[Any] | None = None
        self._handle: h5py.File | None = None
        self._handle_pid = 0
        self._said_out_of_range = False
        with open_dataset(self.path, key) as dataset:
            _check_shape(dataset, self.path)
            self.shape: tuple[int, int, int, int] = dataset.shape
            self.dtype: np.dtype[Any] = dataset.dtype
            self.layout = _describe_layout(dataset)  # "contiguous", "chunked, gzip", ...
            self.chunk_rows = dataset.chunks[0] if dataset.chunks else 1  # read at once
            self._offset = _flat_offset(dataset)
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
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    @property
    def is_mapped(self) -> bool:
        """Whether the data lie flat in the file, so that they are mapped and not copied."""
        return self._offset is not None

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
        if self.is_mapped:
            return np.take(self._mapped(), rows, axis=0)
        return self._read_by_chunk(rows)

    def read_unmapped(self, rows: Rows) -> npt.NDArray[Any]:
        """Return the stored values (n, H, W, 3) of `rows`, read even where they could be mapped.

        As fast for long runs of rows; and a file that is cut short or vanishes meanwhile is a
        DataError, where a map would kill the process (SIGBUS).
        """
        if self._offset is None:
            return self._read_by_chunk(rows)
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if len(rows) == 0:
            return values
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of runs of consecutive rows
        try:
            with open(self.path, "rb", buffering=0) as raw:
                for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
                    position = self._offset + int(rows[start]) * self._row_bytes
                    self._read_into(raw.fileno(), values[start:stop], position, int(rows[start]))
        except OSError as error:
            raise DataError(
                f"{self.path}: patches {rows[0]} to {rows[-1]} cannot be read: {error.strerror}. "
                "It was there when the reading began; see that nothing moves or unmounts it."
            ) from error
        return values

    def _read_into(
        self, descriptor: int, values: npt.NDArray[Any], position: int, first_row: int
    ) -> None:
        wanted = values.reshape(-1).view(np.uint8).data
        while len(wanted):
            num_read = os.preadv(descriptor, [wanted], position)
            if num_read == 0:
                raise DataError(
                    f"{self.path} ends at patch {first_row} or soon after, while it is read: it "
                    "was cut short. Copy or unpack it again."
                )
            wanted, position = wanted[num_read:], position + num_read

    def blocks(
        self, rows: Rows, num_bytes: int | None = None
    ) -> Iterator[tuple[Rows, npt.NDArray[Any]]]:
        """Yield (rows, stored values) for sorted `rows` in turn, by default 32 MB at a time."""
        span = max(1, (num_bytes or _BLOCK_BYTES) // self._row_bytes)
        if self.is_mapped:
            cuts = np.arange(span, len(rows), span)
        else:  # whole chunks, so that none is decompressed twice
            span = max(self.chunk_rows, span - span % self.chunk_rows)
            cuts = np.searchsorted(rows, np.arange(span, len(self), span))
        for piece in np.split(rows, cuts):
            if len(piece):
                yield piece, self.read_unmapped(piece)

    def close(self) -> None:
        """Close what this process holds open; the next read opens it again."""
        self._map = None
        if self._handle is not None and self._handle_pid == os.getpid():
            self._handle.close()
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_handle": None}

    def _establish_value_range(self) -> ValueRange:
        sample = self.read_raw(evenly_spaced(len(self), _NUM_SAMPLED))
        return establish_value_range(sample, str(self.path))

    def _mapped(self) -> npt.NDArray[Any]:
        if self._map is None:
            assert self._offset is not None
            num_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
            # a map beyond the end of a file is no error until a read kills the process (SIGBUS)
            try:
                size = self.path.stat().st_size
                if size < self._offset + num_bytes:
                    raise DataError(
                        f"{self.path} is truncated: {size:,} bytes, where its patches need "
                        f"{self._offset + num_bytes:,}. Copy or unpack it again."
                    )
                self._map = np.asarray(
                    np.memmap(self.path, self.dtype, "r", self._offset, self.shape)
                )
            except OSError as error:
                raise DataError(f"{self.path} cannot be mapped: {error}.") from error
        return self._map

    def _dataset(self) -> h5py.Dataset:
        if self._handle is None or self._handle_pid != os.getpid():
            self._handle = open_file(self.path)
            self._handle_pid = os.getpid()
            _open_files.add(self)
        return find_dataset(self._handle, self.path, self.key)

    def _read_by_chunk(self, rows: Rows) -> npt.NDArray[Any]:
        """Touch each chunk once, by one slice; h5py's own fancy indexing goes row by row."""
        dataset = self._dataset()
        wanted, positions = np.unique(rows, return_inverse=True)
        values = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        start = 0
        for piece in np.split(wanted, np.flatnonzero(np.diff(wanted // self.chunk_rows)) + 1):
            if len(piece) == 0:  # only where no row is wanted at all
                break
            first, last = piece[0], piece[-1]
            try:
                slab = dataset[first : last + 1]
            except (OSError, RuntimeError) as error:
                raise DataError(
                    f"{self.path}: patches {first} to {last} cannot be read: {error}. "
                    "The file is damaged; copy or unpack it again."
                ) from error
            values[start : start + len(piece)] = slab[piece - first]
            start += len(piece)
        return values if np.array_equal(wanted, rows) else values[positions]

    def _check_finite(self, levels: npt.NDArray[np.float32], rows: Rows) -> None:
        bad = ~np.isfinite(levels).reshape(len(levels), -1).all(axis=1)
        if bad.any():
            raise DataError(
                f"{self.path}: patch {rows[bad][0]} holds NaN or Inf. Leave such patches out "
                "(data.filter_data: true drops them) or mend the file."
            )

    def _report_out_of_range(self, levels: npt.NDArray[np.float32], rows: Rows) -> None:
        if self._said_out_of_range:
            return
        outside = ((levels < 0) | (levels > 255)).reshape(len(levels), -1)
        if outside.any():
            self._said_out_of_range = True
            num_patches = int(outside.any(axis=1).sum())
            log.warning(
                "%s: %d values outside 0..255 clipped in %d of the %d patches just read, first "
                "patch %d; later ones are clipped without a word.",
                self.path,
                outside.sum(),
                num_patches,
                len(rows),
                rows[outside.any(axis=1)][0],
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


# Files with an open HDF5 handle. HDF5 keeps file positions and caches in the process: a forked
# child that shared them would read another patch than the one it asked for.
_open_files: weakref.WeakSet[PatchFile] = weakref.WeakSet()


def _close_before_fork() -> None:
    for file in list(_open_files):
        file.close()
    _open_files.clear()


os.register_at_fork(before=_close_before_fork)


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
