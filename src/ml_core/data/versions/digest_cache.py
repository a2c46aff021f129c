"""Digests of whole files, remembered so that what nobody touched is not read again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_core.data.read_through import FileStamp, hash_through
from ml_core.errors import RunError
from ml_core.runs import read_json, write_json

logger = logging.getLogger("ml_core.data")

# A file written this shortly before it was read could be written again without its time changing:
# clocks of file systems tick every 2 s at the coarsest (FAT; NFS and ext3 every second).
_TICK_NS = 2_000_000_000


class DigestCache:
    """Digests by file; kept in `path` after every file, so that a killed pass goes on.

    An entry holds for the same size, time of change and inode. It cannot see bits that rot on the
    disk: `fresh` ignores what is remembered. With `path` None, or where it cannot be written
    (which is said once), nothing is remembered.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        fresh: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self._clock_ns = clock_ns
        self.num_remembered = 0  # digests that were given without reading
        self._entries: dict[str, Any] = {}
        if path is not None and not fresh:
            self._entries = _load(path)

    def digest(self, path: Path, algorithm: str) -> str:
        """Return the digest of `path` in hexadecimal; raises DataError when it cannot be read."""
        name = str(path.absolute())
        known = self._entries.get(name)
        if not (isinstance(known, dict) and known.get("stamp") == list(FileStamp.of(path))):
            known = {}
        if isinstance(known.get(algorithm), str):
            self.num_remembered += 1
            return str(known[algorithm])
        started_ns = self._clock_ns()
        digest, stamp = hash_through(path, algorithm)
        if stamp.mtime_ns + _TICK_NS < started_ns:
            if known.get("stamp") != list(stamp):
                known = {"stamp": list(stamp)}
            self._entries[name] = {**known, algorithm: digest}
            self._save()
        return digest

    def _save(self) -> None:
        if self._path is None:
            return
        try:
            write_json(self._path, {"files": self._entries})
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): were this stopped, the next time would begin anew.",
                self._path, error.strerror,
            )  # fmt: skip
            self._path = None


def _load(path: Path) -> dict[str, Any]:
    """Return the entries; none where there is no file or it is damaged: it is only a memory."""
    try:
        entries = read_json(path).get("files")
    except RunError:
        return {}
    return entries if isinstance(entries, dict) else {}
