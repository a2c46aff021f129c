"""The train split as later epochs find it: in the system's cache, since the first one read it."""

from __future__ import annotations

from collections.abc import Mapping

from ml_core.config import Config
from ml_core.data.free_memory import free_memory
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import Rows
from ml_core.data.pcam import PCAMDataset
from ml_core.data.read_through import FileStamp
from ml_core.log import progress
from ml_core.pipeline.parts.splits import open_split

# Patches that are read once before anything is timed: 0.5 GB of PCam, far beyond a processor's
# caches, and read within seconds where reading all of them takes minutes.
MOST_PATCHES = 16_384


def open_warm(config: Config, exclude: Mapping[str, Rows]) -> PCAMDataset:
    """Return the train split, or as many of its patches as are read in seconds, spread over it.

    They have been read: nothing else tells whether a system still has a file in its cache, and some
    let it go after a minute (DAMON). Raises DataError as reading does.
    """
    most = min(MOST_PATCHES, config.data.max_patches or MOST_PATCHES)
    data = config.data.model_copy(update={"max_patches": most})
    dataset = open_split(config.model_copy(update={"data": data}), "train", exclude)
    if config.data.placement == "file":
        pieces = list(dataset.file.pieces(dataset.indices))
        for piece in progress(pieces, total=len(pieces), description="warm up", unit="blocks"):
            dataset.file.read_raw(piece)
    return dataset


def open_as_later(config: Config, exclude: Mapping[str, Rows]) -> PCAMDataset:
    """Return the train split as every epoch but the first finds it.

    Warm, as above, where memory holds the file; else all of it as it is, off the disk each time.
    """
    free, stamp = free_memory(), FileStamp.of(split_paths(config.data.files_dir, "train").x)
    if free is not None and stamp.size > free:
        return open_split(config, "train", exclude)
    return open_warm(config, exclude)
