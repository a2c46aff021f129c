"""What the system says against reading or writing a file, as errors a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_core.errors import DataError


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an OSError of the body, which reads `path`, into a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing, or vanished while it was read.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn an OSError of the body, which writes `path`, into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}. Make room or get the right to "
            "write there, or name another folder."
        ) from error
