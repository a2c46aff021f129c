"""Room for what a run writes: free bytes, free inodes, and quota where a program tells it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_core.preflight.check import Check, error, ok, warning
from ml_core.preflight.programs import ask_program
from ml_core.preflight.there import nearest_folder

FEW_FILES = 2000  # of inodes: a run makes a few hundred files, a study that many times its trials
TIMEOUT_S = 3.0
KIB = 1024
_NUMBER = r"\[?(\d+)\]?\*?"
_QUOTA = re.compile(rf"\s{_NUMBER}\s+(\d+)\s+(\d+)\s+\S+\s+{_NUMBER}\s+(\d+)\s+(\d+)")


@dataclass(frozen=True)
class Quota:
    """What a user has and may have, in bytes and files; None is no limit."""

    used_bytes: int
    limit_bytes: int | None
    used_files: int
    limit_files: int | None


def check_space(folder: Path, needed_bytes: float) -> list[Check]:
    """Return whether there is room for `needed_bytes` and their files below `folder`.

    `folder` need not be there yet. Quota is asked of lfs (Lustre), mmlsquota (GPFS) and quota.
    """
    place = nearest_folder(folder)
    status = os.statvfs(place)
    free_bytes = status.f_bavail * status.f_frsize
    free_files = status.f_favail if status.f_files else None  # some file systems have no such limit
    quota = _ask_quota(place)
    if quota is not None:
        if quota.limit_bytes is not None:
            free_bytes = min(free_bytes, max(0, quota.limit_bytes - quota.used_bytes))
        if quota.limit_files is not None:
            left = max(0, quota.limit_files - quota.used_files)
            free_files = left if free_files is None else min(free_files, left)
    whose = "of your quota" if quota else "of the disk"
    return list(_room(place, free_bytes, free_files, needed_bytes, whose))


def _room(
    place: Path, free_bytes: float, free_files: int | None, needed_bytes: float, whose: str
) -> Iterator[Check]:
    room = f"{place}: {_size(free_bytes)} {whose} are free"
    needs = f"checkpoints of a run take about {_size(needed_bytes)}"
    if free_bytes < needed_bytes:
        yield error("space", f"{room}, {needs}.", "Free some, or set output_dir elsewhere.")
    elif free_bytes < 10 * needed_bytes:
        yield warning("space", f"{room}, {needs}.", "Ten runs would fill it.")
    else:
        yield ok("space", f"{room}, {needs}.")
    if free_files is not None and free_files < FEW_FILES:
        yield warning(
            "space", f"{place}: room for {free_files:,} more files {whose}.", "Remove some files."
        )


def _ask_quota(place: Path) -> Quota | None:
    """Return the quota that one of the programs tells for `place`; None where none does."""
    user = str(os.getuid())
    asked = {
        "lfs": (["lfs", "quota", "-q", "-u", user, str(place)], parse_quota),
        "mmlsquota": (["mmlsquota", "-u", user, "-Y", "--block-size", "1K"], parse_mmlsquota),
        "quota": (["quota", "-w", "-p", "-f", str(place)], parse_quota),
    }
    for program, (words, parse) in asked.items():
        if shutil.which(program):
            answer = ask_program(words, timeout_s=TIMEOUT_S)
            if (found := parse(answer.output)) is not None:
                return found
    return None


def parse_quota(text: str) -> Quota | None:
    """Return what quota(1) -p and ``lfs quota`` print: KiB, soft, hard, grace, the same of files.

    A star marks what is over its limit, brackets what is not exact, and a limit of 0 is none. lfs
    breaks the line after a long path.
    """
    match = _QUOTA.search(text)
    if match is None:
        return None
    used, soft, hard, files, soft_files, hard_files = match.groups()
    return Quota(
        int(used) * KIB, _limit([soft, hard], KIB), int(files), _limit([soft_files, hard_files], 1)
    )


def parse_mmlsquota(text: str) -> Quota | None:
    """Return what ``mmlsquota -Y`` prints: a line of names with HEADER, then lines of values."""
    rows = [line.split(":") for line in text.splitlines()]
    names = next((row for row in rows if "HEADER" in row), None)
    for row in rows:
        if names is None or "HEADER" in row or len(row) != len(names):
            continue
        said = dict(zip(names, row, strict=True))
        if said.get("quotaType") == "USR" and said.get("blockUsage", "").isdecimal():
            return Quota(
                int(said["blockUsage"]) * KIB,
                _limit([said["blockQuota"], said["blockLimit"]], KIB),
                int(said["filesUsage"]),
                _limit([said["filesQuota"], said["filesLimit"]], 1),
            )
    return None


def _limit(limits: list[str], unit: int) -> int | None:
    """Return the hard limit, else the soft one; 0 is none."""
    soft, hard = (int(limit) if limit.isdecimal() else 0 for limit in limits)
    return (hard or soft) * unit or None


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MB"
