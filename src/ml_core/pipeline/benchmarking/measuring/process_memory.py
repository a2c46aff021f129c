"""The memory that this process has held since it was last asked to forget."""

from __future__ import annotations

import re
from pathlib import Path

_PROC = Path("/proc/self")


def held_bytes() -> int | None:
    """Return what this process holds in memory now; None where the system does not say."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """Return the most that it has held since `forget_peak`; None where the system does not say.

    getrusage is no help: a child begins with the peak of the process that started it.
    """
    return _status("VmHWM")


def forget_peak() -> None:
    """Let `peak_bytes` begin anew; where the system refuses, it stays the peak of all."""
    try:
        (_PROC / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return


def _status(name: str) -> int | None:
    try:
        text = (_PROC / "status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
