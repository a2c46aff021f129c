"""A line of a log: a JSON object whose last key, `crc`, is the checksum of all before it.

    {"step": 1, "loss": 0.5, "crc": "2f6c9a10"}

A JSON line with a changed digit is still a JSON line; only a checksum tells. Lines without one are
those of logs begun by an older version, and come before every line with one.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_core.errors import RunError

_SEAL = b', "crc": "%08x"}'
_SEALED = re.compile(rb'(\{.+?), "crc": "([0-9a-f]{8})"\}')
# The bytes of a seal that do not depend on the line: where nearly all are there, one was damaged.
_FIXED = {place: byte for place, byte in enumerate(_SEAL % 0) if byte != ord("0")}


def to_line(record: Mapping[str, Any]) -> bytes:
    """Return `record`, which has some keys, as a line with its checksum and its newline.

    Raises ValueError for NaN, infinities and a key `crc`, TypeError for what JSON does not know.
    """
    if not record or "crc" in record:
        raise ValueError(f"a log line has keys, and none is 'crc'; got: {', '.join(record)}")
    body = json.dumps(record, allow_nan=False).encode()[:-1]
    return body + _SEAL % zlib.crc32(body) + b"\n"


class LineReader:
    """Reads the lines of the log at `path`, from its first one, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_lines = 0
        self._are_sealed = False  # since the first line that has a checksum

    def read(self, line: bytes) -> dict[str, Any]:
        """Return the record in the next line, which ends in a newline, without its checksum.

        Raises RunError naming file and line where it was damaged; it can then be read again.
        """
        line = line.removesuffix(b"\n")
        sealed = _SEALED.fullmatch(line)
        if sealed is not None and int(sealed[2], 16) != zlib.crc32(sealed[1]):
            raise self._damaged("its checksum is not that of its text")
        try:
            record = json.loads(line if sealed is None else sealed[1] + b"}")
        except ValueError as error:
            raise self._damaged(f"it is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise self._damaged("it is not a JSON object")
        if sealed is None and (self._are_sealed or _was_sealed(line)):
            raise self._damaged("it has no valid checksum")
        self._are_sealed = sealed is not None
        self.num_lines += 1
        return record

    def _damaged(self, why: str) -> RunError:
        return _damaged(f"{self.path}, line {self.num_lines + 1}", why)


def check_tail(tail: bytes, path: Path) -> None:
    """Return where `tail`, what follows the last newline of the log at `path`, is a crash's trace.

    That is the beginning of a line, or zeros where a power cut kept the length and not the text.
    Raises RunError where it is a whole line and more: then its newline was changed.
    """
    text = tail.rstrip(b"\0")
    whole = _SEALED.match(text)
    if whole is not None and whole.end() < len(text):
        raise _damaged(f"{path}, its last line", "the newline at its end was changed")


def _damaged(where: str, why: str) -> RunError:
    return RunError(
        f"{where} is damaged: {why}. Put back a copy of the file, or remove that line: what it "
        "said is then lost, and the other lines are used."
    )


def _was_sealed(line: bytes) -> bool:
    """Return whether the end of `line` differs from a seal in one fixed byte at most."""
    end = line[-len(_SEAL % 0) :]
    num_same = sum(end[place : place + 1] == bytes([byte]) for place, byte in _FIXED.items())
    return num_same >= len(_FIXED) - 1
