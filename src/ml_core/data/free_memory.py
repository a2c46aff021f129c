"""How much memory this process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# Limits of a control group, in bytes: the kernel's admin-guide/cgroup-v2.rst and
# cgroup-v1/memory.rst. Slurm and Docker set them for a job or a container.
_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")
_FILE_PAGES = ("inactive_file", "active_file")  # of memory.stat: given back when memory is short


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Return the bytes that this process can still take; None where the system does not tell.

    The least of what the machine has left (MemAvailable, proc(5)) and of what the limit of each
    control group around this process leaves: that less what is in use, but for pages of files.
    """
    found = [_available(proc), *(_left(group) for group in _groups(proc, cgroups))]
    return min((max(0, left) for left in found if left is not None), default=None)


def free_memory_of(device: torch.device) -> int | None:
    """Return the bytes that are free on `device`: of this machine, where it is the CPU."""
    if device.type == "cpu":
        return free_memory()
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # what torch itself holds and does not use is free to it, and to nobody else
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def _available(proc: Path) -> int | None:
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the folder of every control group around this process that can limit its memory."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroups / "memory" if controllers else cgroups  # version 1, version 2
        own = root / path.lstrip("/")
        yield own
        yield from (parent for parent in own.parents if parent.is_relative_to(root))


def _left(group: Path) -> int | None:
    limits = [limit for name in _LIMITS if (limit := _number(group / name)) is not None]
    used = [number for name in _USED if (number := _number(group / name)) is not None]
    if not limits or not used:
        return None
    return min(limits) - used[0] + _given_back(_text(group / "memory.stat"))


def _given_back(stat: str) -> int:
    """Return the bytes of file pages; version 1 has those of the groups inside as total_."""
    numbers = dict(line.split() for line in stat.splitlines())
    return sum(int(numbers.get(f"total_{name}", numbers.get(name, 0))) for name in _FILE_PAGES)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max": no limit


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
