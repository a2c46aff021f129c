"""What is known of a staged copy, so that a job need not read it again: the file .staged.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_core.data.file_errors import writable
from ml_core.data.read_through import FileStamp, hash_through
from ml_core.data.versions.manifest import MANIFEST_NAME
from ml_core.errors import DataError, RunError
from ml_core.runs import read_json, write_json

STAMP_NAME = ".staged.json"


class StageStamp:
    """What was copied from `source` to `dest`: per file its SHA-256 and the stamps of both sides.

    `wanted` in its methods is the SHA-256 that dataset.json records by file, None without one.
    """

    def __init__(self, source: Path, dest: Path, files: dict[str, Any]) -> None:
        self._source = source
        self._dest = dest
        self._files = files

    @classmethod
    def load(cls, source: Path, dest: Path) -> StageStamp:
        """Return the stamp in `dest`; raises DataError when it is of another source.

        An empty one where there is none or it is damaged: files are then compared by content.
        """
        try:
            raw = read_json(dest / STAMP_NAME)
        except RunError:
            raw = {}
        if raw.get("source", str(source)) != str(source):
            raise DataError(
                f"{dest} holds a copy of {raw['source']}. Name another folder, or remove this one "
                "when no job reads it."
            )
        files = raw.get("files")
        return cls(source, dest, files if isinstance(files, dict) else {})

    def is_all_of(self, wanted: Mapping[str, str | None]) -> bool:
        """Return whether `dest` is the copy that is wanted, no file more and none less."""
        is_exact = set(self._files) == set(wanted)
        return is_exact and all(self.is_current(name, sha256) for name, sha256 in wanted.items())

    def is_current(self, name: str, sha256: str | None) -> bool:
        """Return whether `name` was copied, is what is wanted, and neither side was touched."""
        entry = self._entry(name)
        path = self._dest / name
        return (
            self._is_source_untouched(name)
            and sha256 in (None, entry.get("sha256"))
            and path.is_file()
            and entry.get("copy") == list(FileStamp.of(path))
        )

    def reconcile(self, wanted: Mapping[str, str | None]) -> None:
        """Compare by content what was touched since it was copied; reads only that.

        Raises DataError naming the files of `dest` that another copy of the source would change.
        """
        changed = [name for name in self._files if name not in wanted]
        for name, sha256 in wanted.items():
            # dataset.json may get another note; its data are compared file by file
            if name != MANIFEST_NAME and not self.is_current(name, sha256):
                changed += [] if self._is_same_content(name, sha256) else [name]
        if changed:
            raise DataError(
                f"{self._dest} holds other data than {self._source}: {', '.join(changed)}. Jobs "
                "may be reading it: name another folder, or remove this one when none is."
            )

    def add(self, name: str, seen: FileStamp, sha256: str) -> None:
        """Remember that `dest` holds a copy of what the source was at the stamp `seen`."""
        copy = list(FileStamp.of(self._dest / name))
        self._remember(name, {"source": list(seen), "copy": copy, "sha256": sha256})

    def _is_same_content(self, name: str, sha256: str | None) -> bool:
        """Return whether the source is what was copied; True where nothing was."""
        entry, path = self._entry(name), self._dest / name
        known = entry.get("sha256")
        if known is None:
            if not path.is_file():
                return True
            known = hash_through(path)[0]  # of a stage killed before it could say so, or of others
        if sha256 is None and self._is_source_untouched(name):
            return True
        now, seen = hash_through(self._source / name)
        if now == known and entry:
            self._remember(name, {**entry, "source": list(seen)})
        return now == known

    def _is_source_untouched(self, name: str) -> bool:
        return self._entry(name).get("source") == list(FileStamp.of(self._source / name))

    def _entry(self, name: str) -> Mapping[str, Any]:
        entry = self._files.get(name)
        return entry if isinstance(entry, dict) else {}

    def _remember(self, name: str, entry: Mapping[str, Any]) -> None:
        self._files[name] = entry
        with writable(self._dest):
            write_json(self._dest / STAMP_NAME, {"source": str(self._source), "files": self._files})
