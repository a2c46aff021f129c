"""Check the files of a data set and say what they hold.

Reads the splits that are there, of a folder or of the folder a config names; writes nothing.

    ml-core data info data/pcam
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.data.checks import check_splits
from ml_core.data.layout import SPLITS, split_paths
from ml_core.errors import DataError
from ml_core.pipeline.parts.splits import check_data, describe

logger = logging.getLogger("ml_core.data")


def data_info(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the record of each split that is there; raises DataError at the first defect."""
    if path.is_dir():
        splits = [split for split in SPLITS if split_paths(path, split).x.exists()]
        if not splits:
            names = ", ".join(split_paths(path, split).x.name for split in SPLITS)
            raise DataError(f"{path} holds none of PCam's files: {names}.")
        records = check_splits(path, splits, patch_size=None)
        for record in records:
            logger.info("%s", describe(record))
    else:
        config = Config.load(path, overrides)
        records = check_data(config, ("train", "valid"), {})
    return {record.split: record.to_dict() for record in records}
