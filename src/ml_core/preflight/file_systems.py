"""Which disk a path lies on, and whether other machines are likely to see it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_core.preflight.check import Check, warning

# Of `man 5 filesystems` and the vendors' own: what only this machine has.
LOCAL_TYPES = frozenset({
    "bcachefs", "btrfs", "devtmpfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "rootfs",
    "squashfs", "tmpfs", "xfs", "zfs",
})  # fmt: skip
LOCAL_DIRS = ("/dev/shm", "/local", "/scratch-local", "/tmp", "/var/tmp")
MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True)
class Mount:
    """A file system: where it begins, and its type as the kernel calls it."""

    point: Path
    kind: str


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounts in the text of /proc/self/mounts (proc(5)), blanks in them restored."""
    rows = (line.split(" ") for line in text.splitlines())
    return [Mount(Path(_unescaped(row[1])), row[2]) for row in rows if len(row) > 3]


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return the mount that holds `path`: the longest, and of two at one place the later."""
    holding = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(holding), key=lambda mount: len(mount.point.parts), default=None)


def read_mounts() -> list[Mount]:
    """Return the mounts of this machine; none where the system does not tell them as Linux does."""
    try:
        return parse_mounts(MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return []


def check_shared(paths: Mapping[str, Path], mounts: list[Mount]) -> list[Check]:
    """Return a warning that names what lies on disks which other machines may not see, if any."""
    found: dict[str, list[str]] = {}
    for what, path in paths.items():
        if disk := _local_disk(path, mounts):
            found.setdefault(disk, []).append(f"{what} ({path})")
    if not found:
        return []
    told = "; ".join(f"{', '.join(names)} on {disk}" for disk, names in found.items())
    remedy = "If a job cannot see them there, move them to a shared folder: your home, a project's."
    return [warning("shared", f"may be on disks of this machine alone: {told}.", remedy)]


def _local_disk(path: Path, mounts: list[Mount]) -> str:
    """Return the disk of `path` where it looks like one of this machine alone, else ""."""
    real = Path(os.path.realpath(path))
    folder = next((each for each in LOCAL_DIRS if real.is_relative_to(each)), None)
    if folder is not None:
        return folder
    mount = mount_of(real, mounts)
    return f"{mount.point} ({mount.kind})" if mount and mount.kind in LOCAL_TYPES else ""


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
