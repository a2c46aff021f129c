"""Copy a data set to a disk of this machine, once for all its jobs, and check the copy.

Reads the folder (and its dataset.json, if there is one); writes the copy, with .staged.json.
To be run at the beginning of every job; whoever comes first copies.

    ml-core data stage data/pcam local/pcam
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ml_core.data.transfer.file_system import network_file_system
from ml_core.data.transfer.stage import stage

logger = logging.getLogger("ml_core.data")


def data_stage(source: Path, dest: Path) -> dict[str, Any]:
    """Return {"data_path", "copied", "reused"}: where the copy is; raises DataError."""
    kind = network_file_system(dest)
    if kind is not None:
        logger.warning(
            "%s is on %s, which is shared over the network: it is no faster to read from there, "
            "and jobs on several machines may all copy. Name a folder on a disk of this machine.",
            dest, kind,
        )  # fmt: skip
    staged = stage(source, dest)
    logger.info(
        "%s: %d files copied and checked, %d were there",
        staged.path, len(staged.copied), len(staged.reused),
    )  # fmt: skip
    logger.info("To use it: --set data.local_copy=%s", staged.path)
    return {
        "data_path": str(staged.path),
        "copied": list(staged.copied),
        "reused": list(staged.reused),
    }
