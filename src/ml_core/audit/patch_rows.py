"""Rows of the patches table, measured outside an audit: of some patches of a file, or of pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.measure import collect, measure_split
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import measure_pixels
from ml_core.audit.sources import open_source
from ml_core.audit.table import build_table, label_table
from ml_core.data.layout import SplitPaths
from ml_core.data.patch_file import Rows
from ml_core.errors import DataError

_BLOCK_PATCHES = 32  # as in an audit: their floats nearly stay in cache


def measure_rows(split: str, paths: SplitPaths, rows: Rows, *, num_threads: int) -> pd.DataFrame:
    """Return rows of patches.parquet for the sorted `rows` of one split's files.

    They hold what a pass over these patches alone can know: labels, meta file, colours, stains,
    structure, content. What an audit works out from all patches together (flags, how far a label
    is believed) is not there. Raises DataError for files that cannot be read.
    """
    source, findings = open_source(split, paths)
    if source is None:
        raise DataError(findings[-1].message)
    pieces = measure_split(source.file, rows, [measure_pixels], num_threads=num_threads)
    return build_table([(label_table(source, rows), collect(pieces, len(rows)))])


def measure_levels(levels: npt.NDArray[np.uint8]) -> pd.DataFrame:
    """Return the same measurements, without label and place, of levels (N, H, W, 3)."""
    starts = range(0, len(levels), _BLOCK_PATCHES)
    blocks = [measure_pixels(Block(levels[at : at + _BLOCK_PATCHES])) for at in starts]
    names = blocks[0]
    return pd.DataFrame({name: np.concatenate([each[name] for each in blocks]) for name in names})
