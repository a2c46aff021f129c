"""Patches read again, by table position or by (split, index)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.measure import to_levels
from ml_core.data.patch_file import PatchFile, Rows

_CHUNK = 256  # patches converted at once: floats take four times their memory, several times over

Positions = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint8]


class PatchReader:
    """Gives patches as they would be seen: NaN as 0, values out of range clipped."""

    def __init__(self, files: Mapping[str, PatchFile], patches: pd.DataFrame) -> None:
        self._files = files
        self._names = [str(split) for split in files]
        codes = {split: code for code, split in enumerate(self._names)}
        self._split = patches["split"].map(codes).to_numpy(np.int64)
        self._index = patches["index"].to_numpy(np.int64)

    def __call__(self, positions: Positions) -> Levels:
        """Return levels (n, H, W, 3) of table positions, in their order; all of one size."""
        first = next(iter(self._files.values()))
        levels = np.empty((len(positions), *first.shape[1:]), np.uint8)
        for code, split in enumerate(self._names):
            here = self._split[positions] == code
            if here.any():
                levels[here] = self.at(split, self._index[positions[here]])
        return levels

    def at(self, split: str, index: Rows) -> Levels:
        """Return levels (n, H, W, 3) of rows of a split's file, in their order."""
        file = self._files[split]
        levels = np.empty((len(index), *file.shape[1:]), np.uint8)
        for start in range(0, len(index), _CHUNK):
            here = slice(start, start + _CHUNK)
            levels[here] = to_levels(file, file.read_raw(index[here]))[0]
        return levels
