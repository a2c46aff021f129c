"""One pass over patches: the mean of each, and whether its values are sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.data.patch_file import PatchFile, Rows


@dataclass(frozen=True)
class Survey:
    """What each surveyed patch holds; arrays have one entry per row, in the order of `rows`."""

    rows: Rows
    mean: npt.NDArray[np.float64]  # on the scale 0..255, of the stored values; NaN where one is
    is_finite: npt.NDArray[np.bool_]
    is_in_range: npt.NDArray[np.bool_]  # all finite values within 0..255 once rounded

    @property
    def is_informative(self) -> npt.NDArray[np.bool_]:
        """Whether the mean lies strictly between 0 and 255: what `filter_data` keeps."""
        return (self.mean > 0) & (self.mean < 255)  # False for NaN


def survey_patches(file: PatchFile, rows: Rows) -> Survey:
    """Return the survey of sorted `rows`; each is read once, in blocks of bounded memory."""
    mean = np.empty(len(rows))
    is_finite = np.ones(len(rows), np.bool_)
    is_in_range = np.ones(len(rows), np.bool_)
    start = 0
    for block_rows, raw in file.blocks(rows):
        here = slice(start, start + len(block_rows))
        start = here.stop
        flat = raw.reshape(len(raw), -1)
        if file.is_bytes:
            mean[here] = flat.sum(axis=1, dtype=np.uint64) / flat.shape[1]
            continue
        # divided before it is multiplied, so that an all-white patch is exactly 255
        mean[here] = flat.mean(axis=1, dtype=np.float64) / file.value_range.high * 255
        levels = np.rint(file.value_range.to_levels(flat))
        is_finite[here] = np.isfinite(levels).all(axis=1)
        is_in_range[here] = ~((levels < 0) | ((levels > 255) & np.isfinite(levels))).any(axis=1)
    return Survey(rows, mean, is_finite, is_in_range)
