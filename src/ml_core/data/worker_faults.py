"""What befalls a worker that reads batches, as errors a user can mend."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_core.errors import DataError

# How long a batch may take before its worker counts as stuck, seconds. A worker reads ahead, so
# that a batch is late only when a disk has been silent for as long.
TIMEOUT_S = 45.0

# The first three also from the socket by which a dying worker hands a batch over.
_RAISED = (OSError, EOFError, RuntimeError, MemoryError, DataError)
_SHARED_MEMORY = Path("/dev/shm")
_AGAIN = (
    "No batch was skipped: what was trained is in the checkpoints, and a resume goes on with the "
    "batch that is missing."
)


def in_plain_words(batches: Iterator[Any], timeout_s: float = TIMEOUT_S) -> Iterator[Any]:
    """Yield `batches` of torch's DataLoader with workers; what befalls one is a DataError.

    So is a batch that does not come for `timeout_s`. The time limit of torch does not do: having
    got a batch's name, it waits without limit for a stopped worker to hand the memory over. The
    workers are killed then, since one that is stopped (SIGSTOP, a hung disk) ends by nothing less.
    """
    workers = getattr(batches, "_workers", ())
    with _Watch(workers, timeout_s) as watch:
        try:
            yield from _batches_of(batches, workers, watch)
        except RuntimeError as error:
            # torch raises at each worker that ends, also while the end of another is explained
            if not watch.has_killed:
                raise
            _bury(workers)
            raise DataError(_late(timeout_s)) from error


def _batches_of(batches: Iterator[Any], workers: Sequence[Any], watch: _Watch) -> Iterator[Any]:
    while True:
        try:
            with watch.waiting():
                batch = next(batches)
        except StopIteration:
            return
        except _RAISED as error:
            late = _late(watch.timeout_s) if watch.has_killed else None
            told = late or _explain(str(error)) or _explain_exit(workers)
            _kill(workers)
            _bury(workers)
            if told is None:
                raise
            raise DataError(told) from error
        yield batch


@contextmanager
def explained() -> Iterator[None]:
    """Turn what torch raises for a worker's fault into a DataError; other errors pass.

    Also to be put around a whole training: torch raises from a signal handler, wherever the
    training process happens to be when a worker dies.
    """
    try:
        yield
    except _RAISED as error:
        if (told := _explain(str(error))) is None:
            raise
        raise DataError(told) from error


def _explain(text: str) -> str | None:
    """Return what `text` of an error says in our words; None where no worker said it."""
    if died := re.search(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]*)\.", text):
        return f"a worker that reads data (process {died[1]}) {_cause_of(died[2])} {_AGAIN}"
    if died := re.search(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly", text):
        return f"a worker that reads data (process {died[1]}) ended by itself. {_AGAIN}"
    if "in DataLoader worker process" not in text:
        return None
    if "DataError: " in text:
        return text.rpartition("DataError: ")[2].strip()
    if "MemoryError" in text or "DefaultCPUAllocator" in text or "Cannot allocate memory" in text:
        return (
            "a worker that reads data has no memory left. Set data.num_workers or data.batch_size "
            f"lower, or ask for more memory. {_AGAIN}"
        )
    if "No space left on device" in text or "shared memory" in text or "torch_shm" in text:
        return f"a worker could not hand its batch over: {_room()}. {_MORE_ROOM} {_AGAIN}"
    return None


class _Watch:
    """Kills `workers` once a batch has been waited for longer than `timeout_s`, from a thread.

    It counts its own ticks, not the clock: a job that is suspended as a whole and goes on later has
    not waited.
    """

    def __init__(self, workers: Sequence[Any], timeout_s: float) -> None:
        self.has_killed = False
        self.timeout_s = timeout_s
        self._workers = workers
        self._tick_s = timeout_s / _TICKS
        self._ticks_left: int | None = None  # None while nobody waits
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker watch", daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self._ticks_left = _TICKS
        try:
            yield
        finally:
            self._ticks_left = None

    def _run(self) -> None:
        while not self._is_over.wait(self._tick_s):
            left = self._ticks_left
            if left == 0:
                self.has_killed = True
                _kill(self._workers)
                return
            if left is not None:
                self._ticks_left = left - 1


_TICKS = 30


def _late(timeout_s: float) -> str:
    return (
        f"no batch came for {timeout_s:g} s: a worker that reads data hangs, is stopped, or could "
        f"not hand its batch over ({_room()}). See whether the disk of the data answers. {_AGAIN}"
    )


def _explain_exit(workers: Sequence[Any]) -> str | None:
    """Return what ended the first of `workers` that is no more; None where all of them live."""
    for worker in workers:
        worker.join(timeout=0.5)  # its socket closes before it is gone
        if worker.exitcode is not None:
            signal_name = signal.strsignal(-worker.exitcode) if worker.exitcode < 0 else None
            cause = _cause_of(signal_name) if signal_name else "ended by itself."
            return f"a worker that reads data (process {worker.pid}) {cause} {_AGAIN}"
    return None


_MORE_ROOM = (
    "Set data.num_workers: 0 or data.batch_size lower, or give more of it (docker run --shm-size)."
)


def _cause_of(signal_name: str) -> str:
    if signal_name == signal.strsignal(signal.SIGBUS):
        return f"was killed by the system, for want of shared memory: {_room()}. {_MORE_ROOM}"
    if signal_name == signal.strsignal(signal.SIGKILL):
        return (
            "was killed, by somebody or by the system for want of memory. Set data.num_workers "
            "lower, or ask for more memory."
        )
    if signal_name == signal.strsignal(signal.SIGSEGV):
        return "crashed (segmentation fault). A damaged file does that: ml-core data verify."
    return f"was ended by a signal ({signal_name})."


def _room() -> str:
    try:
        usage = shutil.disk_usage(_SHARED_MEMORY)
    except OSError:
        return f"there is no {_SHARED_MEMORY}"
    return f"{_SHARED_MEMORY} has {usage.free >> 10:,} of {usage.total >> 10:,} KiB free"


def _kill(workers: Sequence[Any]) -> None:
    for worker in workers:
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)


def _bury(workers: Sequence[Any]) -> None:
    """Wait for `workers` that were killed; that they were is not to be said a second time."""
    with contextlib.suppress(RuntimeError):  # torch says it once, from a signal handler
        for worker in workers:
            worker.join()
    for worker in workers:
        worker.join()
