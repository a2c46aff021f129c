"""Where the time of a warm read goes, in this process: stored bytes, decoding, and the rest."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ml_core.data.loader import Batch
from ml_core.data.patch_file import Rows
from ml_core.data.pcam import PCAMDataset
from ml_core.pipeline.benchmarking.measuring.byte_ranges import ByteRanges, read_ranges

PARTS = ("stored", "decoded", "rest")
FEWEST_ROUNDS = 5
Way = Callable[[], Callable[[], object]]  # returns the next read, of which all is timed
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


def measure_parts(
    dataset: PCAMDataset, rows: Iterator[Rows], batches: Iterator[Batch], *, budget_s: float
) -> tuple[dict[str, float], float]:
    """Return the seconds per batch of each of PARTS, and the share of them that was computing.

    Three reads take turns, each of other patches, since what was just read lies in the processor's
    cache: the stored bytes of the next of `rows`, those rows decoded, and the next of `batches`.
    The medians of the rounds are compared. Of a data set that is held in memory all is "rest"; of
    one whose bytes cannot be found (virtual, external) "stored" is what PatchFile.read takes.
    """
    ways: dict[str, Way] = {}
    with contextlib.ExitStack() as stack:
        if dataset.held_on is None:
            with contextlib.suppress(LookupError):
                ways["stored"] = stack.enter_context(_reading_stored(dataset, rows))
            ways["decoded"] = lambda: partial(dataset.file.read, next(rows))
        watch = _Watch(partial(next, batches))
        ways["rest"] = lambda: watch
        medians = _in_turns(ways, budget_s)
    whole = medians["rest"]
    decoded = min(whole, medians.get("decoded", 0.0))
    stored = min(decoded, medians.get("stored", decoded))
    return dict(zip(PARTS, (stored, decoded - stored, whole - decoded), strict=True)), watch.busy


def _in_turns(ways: dict[str, Way], budget_s: float) -> dict[str, float]:
    """Return the median seconds of a read of each of `ways`; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    started, num_rounds = time.perf_counter(), 0
    while num_rounds <= FEWEST_ROUNDS or time.perf_counter() - started < budget_s:
        for name, way in ways.items():
            read = way()
            before = time.perf_counter()
            read()
            if num_rounds > 0:
                seconds[name].append(time.perf_counter() - before)
        num_rounds += 1
    return {name: statistics.median(values) for name, values in seconds.items()}


@contextlib.contextmanager
def _reading_stored(dataset: PCAMDataset, rows: Iterator[Rows]) -> Iterator[Way]:
    ranges = ByteRanges(dataset.file)
    descriptor = os.open(dataset.file.path, os.O_RDONLY)
    try:
        yield lambda: partial(read_ranges, descriptor, ranges.of(next(rows)))
    finally:
        os.close(descriptor)


class _Watch:
    """Calls `read`, and knows in which share of that time this thread computed."""

    def __init__(self, read: Callable[[], object]) -> None:
        self._read = read
        self._wall_s = self._computing_s = 0.0

    @property
    def busy(self) -> float:
        return min(1.0, self._computing_s / self._wall_s)

    def __call__(self) -> None:
        wall, computing = time.perf_counter(), _computing_s()
        self._read()
        self._wall_s += time.perf_counter() - wall
        self._computing_s += _computing_s() - computing


def _computing_s() -> float:
    """Return how long this thread has computed, or could have and waited for a core.

    Who waits for a core does not wait for data: on a busy machine that would look like a slow disk.
    """
    try:
        waited_ns = int(_SCHEDSTAT.read_text().split()[1])  # Documentation/scheduler/sched-stats
    except (OSError, IndexError, ValueError):
        waited_ns = 0
    return time.thread_time() + waited_ns / 1e9
