"""The end of a job's log, as text that is safe to print."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 64 * 1024  # hundreds of lines: a traceback, and what each of many ranks says at its end
MAX_WIDTH = 200

# ECMA-48: control sequences and operating system commands (colours, titles), other escapes; then
# control characters of ASCII and Latin-1, and Unicode's that turn the direction of writing.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class LogEnd:
    """The last lines of a log, without what moves a terminal's cursor or colours it."""

    text: str = ""
    problem: str | None = None  # why a log that is there cannot be read


def read_log_end(path: Path) -> LogEnd:
    """Return the last `MAX_BYTES` of a log; nothing where there is none, and why it is not read."""
    try:
        raw = _read_end(path)
    except FileNotFoundError:
        return LogEnd()
    except OSError as error:
        return LogEnd(problem=error.strerror or str(error))
    return LogEnd("\n".join(map(as_shown, raw.decode(errors="replace").split("\n"))))


def _read_end(path: Path) -> bytes:
    """Return whole lines; raises OSError."""
    # a log may be anything that a user named: opening a pipe would wait for its writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("it is no file")
        start = max(0, about.st_size - MAX_BYTES)
        raw = os.pread(descriptor, MAX_BYTES, start)
    finally:
        os.close(descriptor)
    if start:
        return raw.partition(b"\n")[2] or raw
    return raw


def as_shown(line: str) -> str:
    """Return a line as a terminal would end up showing it: of a progress bar, its last state."""
    states = [state for state in _ESCAPES.sub("", line).split("\r") if state.strip()]
    return _CONTROL.sub("", states[-1]).rstrip() if states else ""


def last_lines(text: str, num_lines: int) -> list[str]:
    """Return the last lines that hold something, those of more than `MAX_WIDTH` letters cut."""
    lines = [line for line in text.split("\n") if line][-num_lines:]
    return [line if len(line) <= MAX_WIDTH else f"{line[: MAX_WIDTH - 1]}…" for line in lines]
