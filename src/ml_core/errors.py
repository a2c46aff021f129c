"""The errors a user can mend.

Each message says what was wrong, where, what is allowed and what to do. The command line prints
it without a traceback and exits with 2; anything else that escapes is our own mistake: exit 1.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class MLCoreError(Exception):
    """Base of every error that the user can mend."""


class ConfigError(MLCoreError):
    """The configuration file or an override is not valid."""


class DataError(MLCoreError):
    """A data file is missing, damaged, or does not hold what its name promises."""


class RunError(MLCoreError):
    """A run directory is missing, incomplete, or would be overwritten."""


class CheckpointError(MLCoreError):
    """A checkpoint is missing, incomplete or has changed since it was written."""


class TrainingError(MLCoreError):
    """Training cannot go on: a loss or gradient is not finite."""


class RankError(MLCoreError):
    """A process that trains together with this one has died or does not answer."""


class ClusterError(MLCoreError):
    """Slurm is not there, refuses, or cannot give what is asked of it."""


class TrackingError(MLCoreError):
    """The tracking server cannot be reached or refuses what it is sent."""


# What to do about a file that cannot be written, by the reason that the system gives.
_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some of your quota",
    errno.EISDIR: "Move that folder away",
    errno.EEXIST: "Move what is in the way",
    errno.ENOTDIR: "Move what is in the way of its folder",
    errno.EACCES: "Make its folder writable",
    errno.EPERM: "Make its folder writable",
    errno.EROFS: "Work on a copy, on a disk that can be written",
}


# Reasons that lie in a disk, its server or a right, and not in this program.
_OF_THE_SYSTEM = frozenset(_REMEDIES) | {
    errno.EIO,
    errno.EHOSTDOWN,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


def in_words(error: Exception) -> str | None:
    """Return what the command line says of `error` in place of a traceback; None if it is ours.

    Most of what a disk can do is told where it happens, with what to do about it; this is for the
    rest, such as a server that loses a file between two writes.
    """
    if isinstance(error, MLCoreError):
        return str(error)
    if not isinstance(error, OSError) or error.errno not in _OF_THE_SYSTEM:
        return None
    where = f" ({error.filename})" if error.filename else ""
    remedy = _REMEDIES.get(error.errno, "See whether its disk can be read and written")
    return (
        f"the system says: {error.strerror}{where}. What was written before is whole. {remedy}, "
        "and run the command again."
    )


def cannot_write(path: Path, error: OSError) -> str:
    """Return that `path` cannot be written, why, and what to do about that."""
    remedy = _REMEDIES.get(error.errno or 0, "See that its folder can be written")
    return f"cannot write {path}: {error.strerror or error}. {remedy}, and run the stage again."


def first_problem(error: ValidationError) -> str:
    """Return where in a file the first thing of the wrong kind is, and what is wrong with it."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}"


def did_you_mean(wrong: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the allowed name nearest to `wrong`, or ``""``."""
    near = difflib.get_close_matches(wrong, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
