"""How fast batches come of a file that the system has forgotten."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import re
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ml_core.data.loader import PatchLoader
from ml_core.errors import DataError
from ml_core.pipeline.benchmarking.figures import Rate
from ml_core.pipeline.benchmarking.measuring.byte_ranges import ByteRange, ByteRanges
from ml_core.pipeline.benchmarking.measuring.timing import rate_from

MOST_PATCHES = 4096  # are forgotten, some 100 MB: the rest of the file stays in memory
ENOUGH_FROM_DISK = 0.5  # of the bytes read: less, and it was not the disk that was measured
MOST_RESIDENT = 0.1  # of their pages, just before they are read


def measure_cold(loader: PatchLoader, epoch: int, *, budget_s: float) -> tuple[Rate | None, str]:
    """Return the rate of the first batches of `epoch`, read off the disk; or None, and why.

    The system is told to forget just the bytes of those batches, and has them again afterwards.
    Whether it did is seen by what came off the disk, or by which pages were in memory: a RAM disk
    has nowhere else to keep them. The readers of `loader` must have been started.
    """
    file, sampler = loader.patches.file, loader.batch_sampler
    try:
        ranges = ByteRanges(file)
    except LookupError as error:
        return None, f"{error}: its bytes are not known"
    sampler.set_epoch(epoch)
    batches = list(islice(iter(sampler), max(1, MOST_PATCHES // sampler.batch_size)))
    rows = np.concatenate([loader.patches.indices[batch] for batch in batches])
    wanted = _whole_pages(ranges.of(rows))
    with _opened(file.path) as descriptor:
        _forget(descriptor, wanted)
        resident, before = _resident_share(descriptor, wanted), _bytes_off_disk()
        pieces = _timed(loader, len(batches), budget_s)
        after = _bytes_off_disk()
        for each in wanted:  # those that there was no time for
            os.posix_fadvise(descriptor, each.start, each.size, os.POSIX_FADV_WILLNEED)
    share_read = sum(patches for patches, _ in pieces) / len(rows)
    num_bytes = share_read * sum(each.size for each in wanted)
    if after - before >= ENOUGH_FROM_DISK * num_bytes or resident <= MOST_RESIDENT:
        return rate_from(pieces), ""
    return None, (
        f"the system keeps the file in memory whatever it is told: {resident:.0%} of the pages "
        f"stayed, and {(after - before) / 1e6:.0f} of {num_bytes / 1e6:.0f} MB came off a disk"
    )


def _timed(loader: PatchLoader, num_batches: int, budget_s: float) -> list[tuple[int, float]]:
    """Return (patches, seconds) of the next batches: as many to a piece as there are readers."""
    started = before = time.perf_counter()
    pieces, patches = list[tuple[int, float]](), 0
    for number, batch in enumerate(islice(loader, num_batches), start=1):
        patches += len(batch.labels)
        if number % max(1, loader.num_workers) == 0 or number == num_batches:
            now = time.perf_counter()
            pieces.append((patches, now - before))
            before, patches = now, 0
            if now - started > budget_s:
                break
    return pieces


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _whole_pages(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    """Return `ranges` with the rest of their first and last pages, which are kept as a whole."""
    starts = [each.start - each.start % mmap.PAGESIZE for each in ranges]
    ends = [-(-(each.start + each.size) // mmap.PAGESIZE) * mmap.PAGESIZE for each in ranges]
    return [ByteRange(start, end - start) for start, end in zip(starts, ends, strict=True)]


def _forget(descriptor: int, ranges: Sequence[ByteRange]) -> None:
    with contextlib.suppress(OSError):  # some file systems have nothing to sync
        os.fsync(descriptor)  # a page that is not on the disk yet cannot be forgotten
    for each in ranges:
        os.posix_fadvise(descriptor, each.start, each.size, os.POSIX_FADV_DONTNEED)


def _resident_share(descriptor: int, ranges: Sequence[ByteRange]) -> float:
    """Return which share of the pages of `ranges` is in memory; 1 where the system does not say.

    By mincore(2), which since Linux 5.2 says so of every page of a file one has no right to write.
    """
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped:
        mapped_bytes = np.frombuffer(mapped, np.uint8)  # for its address; none is touched
        found = list[np.ndarray]()
        for start, size in ranges:
            pages = np.ones(-(-size // mmap.PAGESIZE), np.uint8)
            address = mapped_bytes.ctypes.data + start
            length = min(size, len(mapped) - start)
            mincore(*map(ctypes.c_void_p, (address, length, pages.ctypes.data)))
            found.append(pages & 1)
        del mapped_bytes  # a map that is still looked into cannot be closed
    return float(np.concatenate(found).mean())


def _bytes_off_disk() -> int:
    """Return what this process and its readers have had fetched from a disk: proc(5), io."""
    pids = ["self", *(str(child.pid) for child in multiprocessing.active_children())]
    return sum(_read_bytes(Path(f"/proc/{pid}/io")) for pid in pids)


def _read_bytes(path: Path) -> int:
    try:
        found = re.search(r"^read_bytes: (\d+)", path.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
