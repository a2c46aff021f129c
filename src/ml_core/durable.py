"""Writes that a reader, a kill or a power cut finds done or not begun."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make the folder `path`, and those above it, if need be; a power cut does not undo it.

    Raises OSError where that cannot be.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        sync(folder.parent)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to write; when all went well it takes the place of `path`.

    The folder is made if need be. Raises OSError when the disk is full or the folder cannot be
    written; `path` is then as it was, and nothing is left beside it.
    """
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)
