"""NAME.part: a download that is not whole yet, its MD5 so far, and the version it is of."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ml_core.data.file_errors import writable
from ml_core.data.read_through import read_through
from ml_core.durable import sync


class PartFile:
    """The bytes of `path` that have come so far, in NAME.part, and their MD5.

    Bytes that an earlier process left are hashed when it is opened. NAME.part.etag keeps the
    server's name for the version they are of. Every failure is a DataError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part_path = path.with_name(f"{path.name}.part")
        self._etag_path = path.with_name(f"{path.name}.part.etag")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0
        if self.part_path.exists():
            self.size = read_through(self.part_path, [self._md5]).size
        self.is_resumed = self.size > 0  # whether bytes of more than one answer are in it

    @property
    def md5(self) -> str:
        """The MD5 of the bytes so far, in hexadecimal."""
        return self._md5.hexdigest()

    @property
    def etag(self) -> str | None:
        """What the server called the version that the bytes are of, if it said so."""
        try:
            return self._etag_path.read_text(encoding="latin-1") or None
        except OSError:
            return None

    def append(self, block: bytes) -> None:
        with writable(self.part_path), open(self.part_path, "ab", buffering=0) as file:
            view = memoryview(block)
            while len(view):  # an unbuffered write may take a part only
                view = view[file.write(view) :]
        self._md5.update(block)
        self.size += len(block)

    def restart(self, etag: str | None) -> None:
        """Forget the bytes so far; what comes next is of the version `etag`."""
        self.discard()
        if etag is not None:
            with writable(self._etag_path):
                self._etag_path.write_text(etag, encoding="latin-1")

    def discard(self) -> None:
        """Remove the bytes so far."""
        with writable(self.part_path):
            self.part_path.unlink(missing_ok=True)
            self._etag_path.unlink(missing_ok=True)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0
        self.is_resumed = False

    def finish(self) -> None:
        """Give the bytes their name, so that they survive a power cut."""
        with writable(self.path):
            if self.size == 0:
                self.part_path.touch()
            sync(self.part_path)
            os.replace(self.part_path, self.path)
            sync(self.path.parent)
            self._etag_path.unlink(missing_ok=True)
