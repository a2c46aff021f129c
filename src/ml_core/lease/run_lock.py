"""The lock of a run: held by the kernel for a process, and gone with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from typing import IO

from ml_core.errors import RunError
from ml_core.lease.lineage import Generation
from ml_core.runs import RunDir

# Readers that were forked share their trainer's lock, and look every second whether it lives.
ORPHANS_S = 10.0
_POLL_S = 0.1
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

logger = logging.getLogger("ml_core.train")


def lock_run(run: RunDir, last: Generation | None, *, replace: bool) -> IO[str]:
    """Return the run's lock file, locked until it is closed.

    `last` is the process that trained here last. Where the lock is held: with `replace` a new file
    takes its place; where `last` was killed on this machine its reader processes get the time to
    end; else this raises RunError. A file system without locks is one warning.
    """
    deadline = time.monotonic() + ORPHANS_S
    while True:
        file = open(run.lock_path, "a", encoding="utf-8")  # noqa: SIM115 - the lock lives as long
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file_at(file, run):  # not replaced between the two lines above
                return file
        except BlockingIOError as error:
            if replace:
                logger.warning("taking %s over from %s", run.path, last)
                run.lock_path.unlink(missing_ok=True)
            elif last is not None and _was_killed_here(last) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            else:
                raise _refusal(run, last) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
            logger.warning(
                "%s lies on a disk without locks: see that one process trains there.", run.path
            )
            return file
        file.close()


def _is_file_at(file: IO[str], run: RunDir) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), run.lock_path.stat())
    return False


def _was_killed_here(last: Generation) -> bool:
    if last.host != socket.gethostname():
        return False
    try:
        os.kill(last.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _refusal(run: RunDir, last: Generation | None) -> RunError:
    who = f" ({last})" if last is not None else ""
    return RunError(
        f"another process is training in {run.path}{who}. Wait for it, or stop it first."
    )
