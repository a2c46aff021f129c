"""Which process is which, and whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STARTED = 19  # start time is field 22 of /proc/PID/stat, the third being the first after the name


def this_process() -> dict[str, Any]:
    """Return what tells this process from every other: machine, pid and when that pid began."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "pid_started": start_time(os.getpid()),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def is_alive(process: Mapping[str, Any]) -> bool | None:
    """Whether a process lives that `this_process` described; None where that cannot be seen here.

    A pid is given again, so its start time must be the same; a zombie is dead.
    """
    if (process.get("host"), process.get("machine")) != (socket.gethostname(), _machine()):
        return None
    pid = int(process["pid"])
    if process.get("pid_started") is not None:
        return start_time(pid) == int(process["pid_started"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def start_time(pid: int) -> int | None:
    """Return when the process began, in clock ticks since boot; None if dead or without /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return None if fields[0] in "ZX" else int(fields[_STARTED])


def _machine() -> str | None:
    """Return what two containers of one name on one host do not share, nor two boots of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
