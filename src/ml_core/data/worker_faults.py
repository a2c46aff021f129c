"""What befalls a worker that reads batches, as errors a user can mend."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_core.errors import DataError

# How long a batch may take before its worker counts as stuck, seconds. A worker reads ahead, so
# that a batch is late only when a disk has been silent for as long.
TIMEOUT_S = 45.0

_SHARED_MEMORY = Path("/dev/shm")
_AGAIN = (
    "No batch was skipped: what was trained is in the checkpoints, and a resume goes on with the "
    "batch that is missing."
)


def in_plain_words(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield `batches` of torch's DataLoader with workers; what befalls one is a DataError.

    Its workers are killed then: one that is stopped (SIGSTOP, a hung disk) ends by nothing less,
    and this process would wait for it for ever when it exits.
    """
    try:
        with explained():
            yield from batches
    except DataError:
        _kill(getattr(batches, "_workers", ()))
        raise


@contextmanager
def explained() -> Iterator[None]:
    """Turn what torch raises for a worker's fault into a DataError; other errors pass.

    Also to be put around a whole training: torch raises from a signal handler, wherever the
    training process happens to be when a worker dies.
    """
    try:
        yield
    except (DataError, OSError, RuntimeError, MemoryError) as error:
        if (told := _explain(str(error))) is None:
            raise
        raise DataError(told) from error


def _explain(text: str) -> str | None:
    """Return what `text` of an error says in our words; None where no worker said it."""
    if died := re.search(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]*)\.", text):
        return f"a worker that reads data (process {died[1]}) {_cause_of(died[2])} {_AGAIN}"
    if died := re.search(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly", text):
        return f"a worker that reads data (process {died[1]}) ended by itself. {_AGAIN}"
    if late := re.search(r"DataLoader timed out after (\S+) seconds", text):
        return (
            f"no batch came for {float(late[1]):g} s: a worker that reads data hangs, is stopped, "
            f"or could not hand its batch over ({_room()}). See whether the disk of the data "
            f"answers. {_AGAIN}"
        )
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
    return f"{_SHARED_MEMORY} has {usage.free >> 20:,} of {usage.total >> 20:,} MiB free"


def _kill(workers: Any) -> None:
    for worker in workers:
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
