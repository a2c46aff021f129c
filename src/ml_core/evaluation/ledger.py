"""A file of lines that are only ever added, each holding the hash of the one before.

    {"number": 1, "previous": "", "event": "opened", ...}
    {"number": 2, "previous": "9f86d081884c...", "event": "ended", ...}

A line that was changed, removed or moved is noticed by the line after it. What no chain can notice
is the loss of its last lines: whoever writes keeps `Line.text` elsewhere too, to compare.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.durable import sync
from ml_core.errors import RunError

TORN = "torn"  # the event of a line that stands for one whose writing was cut short


@dataclass(frozen=True)
class Line:
    """One line of a ledger as it was written, without its newline."""

    text: str

    @property
    def sha256(self) -> str:
        """The hash that the next line holds."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def entry(self) -> dict[str, Any]:
        """What the line says, with its "number" and the hash of the "previous" line."""
        entry: dict[str, Any] = json.loads(self.text)
        return entry


def read_ledger(path: Path) -> list[Line]:
    """Return the lines of the ledger at `path`; none where there is no file.

    A last line without its newline is left out: the next `append_line` repairs it. Raises RunError
    naming the line where the chain does not hold, and when the file cannot be read.
    """
    try:
        with _locked(path, os.O_RDONLY, fcntl.LOCK_SH) as file:
            return _parse(_content(file), path)[0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror or error}. It holds how often the test set "
            "was opened: get the right to read it."
        ) from error


def append_line(path: Path, entry: Mapping[str, Any]) -> Line:
    """Add `entry`, which has an "event", to the ledger at `path`, which is made if need be.

    Returns the new line when it is on the disk; a last line that was cut short is repaired first.
    Among processes one writes at a time (flock). Raises RunError where the chain does not hold;
    OSError when the file cannot be locked or written, and the ledger is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
        content = _content(file)
        lines, torn = _parse(content, path)
        end = len(content) - len(torn.encode("utf-8", "surrogateescape"))
        new = [_whole_or_torn(lines, torn)] if torn else []
        new.append(_chained([*lines, *new], entry))
        _write(file, "".join(f"{line.text}\n" for line in new), end, torn=content[end:])
    sync(path.parent)
    return new[-1]


@contextmanager
def _locked(path: Path, flags: int, lock: int) -> Iterator[int]:
    file = os.open(path, flags, 0o666)  # a colleague may have to add to it
    try:
        fcntl.flock(file, lock)  # ends with the process, however that ends
        yield file
    finally:
        os.close(file)


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _parse(content: bytes, path: Path) -> tuple[list[Line], str]:
    """Return the whole lines, the chain verified, and what follows the last newline."""
    *texts, torn = content.decode("utf-8", "surrogateescape").split("\n")
    lines: list[Line] = []
    for number, text in enumerate(texts, start=1):
        if problem := _problem(text, number, lines):
            raise RunError(
                f"{path}, line {number}: {problem}. This ledger says how often a test set was "
                "opened and is only ever added to, so nothing is scored on that set until the file "
                "is as it was: restore it from a backup. Every run that opened the set keeps its "
                "own lines."
            )
        lines.append(Line(text))
    return lines, torn


def _problem(text: str, number: int, before: list[Line]) -> str:
    """Return what is wrong with line `number` after the lines `before`, or ""."""
    try:
        entry = json.loads(text)
        found, previous, _ = entry["number"], entry["previous"], entry["event"]
    except (ValueError, KeyError, TypeError):
        return "is damaged: it is not a line of a ledger"
    if found != number:
        return f"says that it is number {found}, so lines were removed, added or moved"
    if previous != (before[-1].sha256 if before else ""):
        return f"does not hold the hash of line {number - 1}, which was changed since"
    return ""


def _chained(before: list[Line], entry: Mapping[str, Any]) -> Line:
    place = {"number": len(before) + 1, "previous": before[-1].sha256 if before else ""}
    return Line(json.dumps({**place, **entry}, allow_nan=False))


def _whole_or_torn(lines: list[Line], torn: str) -> Line:
    """Return the last line where only its newline is missing, else one that keeps what is left."""
    if not _problem(torn, len(lines) + 1, lines):
        return Line(torn)
    return _chained(lines, {"event": TORN, "text": torn})


def _write(file: int, text: str, at: int, torn: bytes) -> None:
    """Write `text` at byte `at` and wait for the disk; when that fails, put back what was there."""
    data = text.encode()
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(file, data[written:], at + written)
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, at)
            os.pwrite(file, torn, at)
        raise
