"""The errors a user can mend.

Each message says what was wrong, where, what is allowed and what to do. The command line prints
it without a traceback and exits with 2; anything else that escapes is our own mistake: exit 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


class TrackingError(MLCoreError):
    """The tracking server cannot be reached or refuses what it is sent."""


def did_you_mean(wrong: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the allowed name nearest to `wrong`, or ``""``."""
    near = difflib.get_close_matches(wrong, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
