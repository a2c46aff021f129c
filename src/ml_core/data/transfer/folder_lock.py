"""One writer at a time in a folder, among the processes of one machine."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")

_LOCK_NAME = ".ml-core.lock"


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be, while the body runs.

    The lock is the kernel's (flock): it ends with the process that holds it, however that ends, so
    that a killed job blocks nobody. The file .ml-core.lock stays: were it removed, two could hold
    two locks of one name. With `wait`, wait for the holder; without, raise DataError when there is
    one. Raises DataError too where the folder cannot be written or knows no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror}. Name a folder you may write to."
        ) from error
    try:
        _take(descriptor, folder, wait)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        if not wait:
            raise DataError(
                f"another process is writing to {folder}. Wait until it is done."
            ) from None
    except OSError as error:
        raise DataError(_explain_no_locks(folder, error)) from error
    logger.info("%s: another process is writing here; waiting for it.", folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise DataError(_explain_no_locks(folder, error)) from error


def _explain_no_locks(folder: Path, error: OSError) -> str:
    return (
        f"{folder} cannot be locked: {error.strerror}. Its file system is probably shared over "
        "the network; name a folder on a disk of this machine."
    )
