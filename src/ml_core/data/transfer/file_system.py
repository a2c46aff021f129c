"""Which file system a folder is on, as far as Linux says."""

from __future__ import annotations

from pathlib import Path

# Those that several machines mount at once; fuse.* are named one by one, since some are local.
_NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "panfs"),
    *("pvfs2", "afs", "9p", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.beegfs"),
)
_MOUNTS = Path("/proc/self/mounts")


def network_file_system(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the network file system that `path` is on ("nfs4"), or None.

    None too where the system does not say: another than Linux, or a type that is not known here.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found, depth = "", -1
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        place = Path(point.replace("\\040", " "))
        if path.absolute().is_relative_to(place) and len(place.parts) >= depth:  # the last wins
            found, depth = kind, len(place.parts)
    return found if found in _NETWORK else None
