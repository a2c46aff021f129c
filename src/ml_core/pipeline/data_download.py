"""Download PatchCamelyon from Zenodo, check it, unpack it, check it again.

Writes the files of the splits into the folder; needs about twice their size until it is done. What
is there and right is not fetched again, and a download that was stopped goes on where it was.

    ml-core data download data/pcam --split valid
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_core.data.layout import SPLITS, split_paths
from ml_core.data.transfer.download import download
from ml_core.data.transfer.patience import Patience
from ml_core.data.versions.official import OFFICIAL_FILES, OfficialFile
from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")


def data_download(
    folder: Path,
    splits: Sequence[str] = SPLITS,
    *,
    keep_archives: bool = False,
    base_url: str | None = None,
    official: Sequence[OfficialFile] = OFFICIAL_FILES,
    patience: Patience | None = None,
) -> dict[str, Any]:
    """Return {"data_path", "fetched", "already_there"}; raises DataError."""
    if not splits:
        raise DataError(f"no split to download; PCam has: {', '.join(SPLITS)}.")
    for split in splits:
        split_paths(folder, split)  # refuses a split that PCam does not have
    files = [file for file in official if file.split in splits]
    done = download(
        folder, files, patience or Patience(), base_url=base_url, keep_archives=keep_archives
    )
    logger.info(
        "%s: %d files downloaded and checked, %d were there",
        folder, len(done.fetched), len(done.already_there),
    )  # fmt: skip
    return {
        "data_path": str(folder),
        "fetched": list(done.fetched),
        "already_there": list(done.already_there),
    }
