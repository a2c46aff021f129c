"""Whether a folder is read over the network, where a job's own disk would be faster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ml_core.preflight.file_systems import Mount, mount_of

# As /proc/self/mounts names what clusters share their files by; `fuse.` of those in user space.
NETWORK = re.compile(
    r"(fuse\.)?(nfs4?|lustre|gpfs|mmfs|beegfs|ceph|cifs|smb3|afs|panfs|wekafs|pvfs2|orangefs"
    r"|glusterfs|sshfs|juicefs|daos|s3fs)"
)


def is_on_network(path: Path, mounts: Sequence[Mount]) -> bool:
    """Return whether `path` lies on a disk of other machines; where that is not known, no."""
    mount = mount_of(path.resolve(), list(mounts))
    return mount is not None and NETWORK.fullmatch(mount.kind) is not None
