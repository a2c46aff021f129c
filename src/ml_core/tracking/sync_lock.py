"""One sender to MLflow at a time: two at once could send a value twice."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_core.errors import RunError, TrackingError


class BeingSentError(TrackingError):
    """Another process is sending this run or study."""


@contextmanager
def only_sender(directory: Path, wait_s: float) -> Iterator[None]:
    """Keep other senders of this run or study away, those that honour this file system's locks.

    Raises BeingSentError when one is still there after `wait_s`, RunError when the directory cannot
    be written.
    """
    deadline = time.monotonic() + wait_s
    try:
        lock = open(directory / ".sync.lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise RunError(
            f"cannot write in {directory}: {error.strerror}. What was sent is noted there: "
            "send the run as a user who may write, or send a copy of it."
        ) from error
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise BeingSentError(
                        f"{directory} is being sent to MLflow by another process. "
                        "Wait until it is done (sync.json says `complete`), then try again."
                    ) from error
                time.sleep(0.2)
        yield
