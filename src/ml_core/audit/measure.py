"""The one pass: every patch is read once and measured, by all cores, in bounded memory."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from ml_core.audit.measures.block import Block, Measure
from ml_core.data.patch_file import PatchFile, Rows

Columns = dict[str, npt.NDArray[Any]]

_READ_BYTES = 8 * 2**20  # read at once, and the work of one task: some 50 ms
_BLOCK_PATCHES = 32  # measured at once: their floats, 3.5 MB at 96x96, nearly stay in cache


def measure_split(
    file: PatchFile, rows: Rows, measures: Sequence[Measure], *, num_threads: int
) -> Iterator[tuple[Rows, Columns]]:
    """Yield (rows, measurements of these rows) in turn for sorted `rows` of a file.

    One thread reads, `num_threads` measure; numpy and hashlib let go of the interpreter's lock, so
    threads are as fast as processes here and share the file. Beside `measures` it gives
    share_nan, the share of stored values that are NaN or infinite, and share_out_of_range, of the
    finite ones outside the file's value range. Raises DataError when the file cannot be read.
    """
    waiting: collections.deque[tuple[Rows, Future[Columns]]] = collections.deque()
    with ThreadPoolExecutor(num_threads) as pool, threadpool_limits(limits=1):
        try:
            for piece, raw in file.blocks(rows, _READ_BYTES):
                waiting.append((piece, pool.submit(_measure, file, raw, measures)))
                if len(waiting) > num_threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def num_pieces(file: PatchFile, rows: Rows) -> int:
    """Return about how many pieces `measure_split` yields, for a progress bar."""
    row_bytes = int(np.prod(file.shape[1:])) * file.dtype.itemsize
    return max(1, -(-len(rows) * row_bytes // _READ_BYTES))


def _measure(file: PatchFile, raw: npt.NDArray[Any], measures: Sequence[Measure]) -> Columns:
    parts = []
    for start in range(0, len(raw), _BLOCK_PATCHES):
        stored = raw[start : start + _BLOCK_PATCHES]
        levels, columns = to_levels(file, stored)
        block = Block(levels)
        for measure in measures:
            columns.update(measure(block))
        parts.append(columns)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def to_levels(file: PatchFile, stored: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], Columns]:
    """Return stored values (n, H, W, 3) as uint8 levels, and which shares had to be bent for that.

    NaN and infinities become 0, values out of range its nearest end.
    """
    num = len(stored)
    if file.is_bytes:
        zeros = np.zeros(num, np.float32)
        return stored, {"share_nan": zeros, "share_out_of_range": zeros}
    levels = np.rint(file.value_range.to_levels(stored))
    finite = np.isfinite(levels)
    outside = finite & ((levels < 0) | (levels > 255))
    shares = {
        "share_nan": 1 - finite.reshape(num, -1).mean(axis=1),
        "share_out_of_range": outside.reshape(num, -1).mean(axis=1),
    }
    clipped = np.clip(np.where(finite, levels, 0), 0, 255).astype(np.uint8)
    return clipped, {name: share.astype(np.float32) for name, share in shares.items()}


def collect(pieces: Iterator[tuple[Rows, Columns]], num_rows: int) -> Columns:
    """Return the measurements of all pieces as whole arrays of `num_rows`, row after row."""
    whole: Columns = {}
    start = 0
    for rows, columns in pieces:
        here = slice(start, start + len(rows))
        start = here.stop
        for name, values in columns.items():
            if name not in whole:
                whole[name] = np.empty((num_rows, *values.shape[1:]), values.dtype)
            whole[name][here] = values
    assert start == num_rows
    return whole
