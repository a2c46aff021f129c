"""What is there, asked in a way that a folder one may not enter is no error but not there."""

from __future__ import annotations

import contextlib
from pathlib import Path


def is_folder(path: Path) -> bool:
    """Return whether `path` is a folder that can be looked at."""
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def nearest_folder(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that can be looked at."""
    return next(each for each in (path, *path.parents) if is_folder(each))
