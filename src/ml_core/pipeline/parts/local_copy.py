"""The copy of the data on a disk of this machine: used, or not, and said; never other data."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ml_core.config import DataConfig
from ml_core.data.layout import split_paths
from ml_core.errors import DataError
from ml_core.log import shown

logger = logging.getLogger("ml_core.data")


def say_where_read(data: DataConfig) -> None:
    """Say in a line whether the copy is read, for a config that names one."""
    if data.local_copy is None:
        return
    if data.files_dir == data.local_copy:
        logger.info("read from %s, a copy of %s", shown(data.local_copy), shown(data.data_path))
    else:
        logger.info(
            "data.local_copy %s is not on this machine; read from %s",
            shown(data.local_copy), shown(data.data_path),
        )  # fmt: skip


def check_copy(data: DataConfig, splits: Sequence[str]) -> None:
    """Raise DataError where a file of the copy has another size than that of data_path.

    Their bytes are not compared, which would read what the copy is there to spare: they are held
    against the audit and the run's record, as those of data_path are.
    """
    if data.files_dir == data.data_path:
        return
    for split in splits:
        original, copy = split_paths(data.data_path, split), split_paths(data.files_dir, split)
        for ours, theirs in ((copy.x, original.x), (copy.y, original.y)):
            if not (ours.is_file() and theirs.is_file()):
                continue  # a copy that lacks a file is refused where it is read
            sizes = ours.stat().st_size, theirs.stat().st_size
            if sizes[0] != sizes[1]:
                raise DataError(
                    f"{ours} has {sizes[0]:,} bytes and {theirs} {sizes[1]:,}: data.local_copy is "
                    f"no copy of data.data_path. Copy it anew: ml-core data stage "
                    f"{shown(data.data_path)} DIR; or leave data.local_copy away."
                )
