"""This machine's clock against the scheduler's and the file system's."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from ml_core.cluster.slurm import fields, run
from ml_core.errors import ClusterError
from ml_core.preflight.check import Check, ok, warning
from ml_core.preflight.there import nearest_folder

MOST_S = 60.0  # jobs, locks and audits are compared by time to about a minute
TIMEOUT_S = 5.0
# The controller's own time when it was asked; in this machine's time zone
_ANSWERED_AT = re.compile(r"^Configuration data as of (\S+)", re.MULTILINE)


def check_clock(folder: Path, now: Callable[[], float], *, ask_slurm: bool) -> list[Check]:
    """Return which of two clocks is more than a minute off `now`; nothing where none can be asked.

    A file is made in `folder`, or in the nearest folder above it that is there, and removed.
    """
    others = {"the file system": _file_system_s(folder)}
    if ask_slurm:
        others["Slurm's controller"] = _controller_s()
    asked = {name: then - now() for name, then in others.items() if then is not None}
    wrong = [f"{name} by {off_s:+.0f} s" for name, off_s in asked.items() if abs(off_s) > MOST_S]
    if wrong:
        told = f"this machine's clock differs: {', '.join(wrong)}."
        return [warning("clock", told, "Tell whoever runs it; times in logs will not agree.")]
    if not asked:
        return []
    return [ok("clock", f"agrees with that of {' and '.join(asked)}.")]


def _file_system_s(folder: Path) -> float | None:
    try:
        with tempfile.NamedTemporaryFile(
            dir=nearest_folder(folder), prefix=".ml-core-doctor-"
        ) as file:
            file.write(b"\n")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None  # that it cannot be written is said by another check


def _controller_s() -> float | None:
    try:
        said = _ANSWERED_AT.search(run("scontrol", "show", "config", timeout_s=TIMEOUT_S))
    except ClusterError:
        return None
    answered_at = fields.when(said[1]) if said else None
    return None if answered_at is None else answered_at.timestamp()
