"""More or less of one stain, by colour deconvolution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.data.augment import stain_matrix
from ml_core.evaluation.robustness.levels import to_levels

STAINS = ("haematoxylin", "eosin")  # the rows of `stain_matrix`, in this order

_LOGS = np.log(np.arange(1, 257, dtype=np.float32))  # of level + 1; a table is 10 times as fast


def scale_stain(patches: npt.NDArray[np.uint8], factor: float, stain: str) -> npt.NDArray[np.uint8]:
    """Return patches (N, H, W, 3) in which every pixel holds `factor` times as much of `stain`.

    Optical densities are unmixed into haematoxylin, eosin and a residual, as in training's stain
    jitter (Ruifrok and Johnston 2001; Tellez et al. 2018); the other two amounts stay. White stays
    white, but grey glass counts as a little stained. What gets darker than level 0 or brighter than
    255 is cut off: pixels near black take up less than `factor` says.
    """
    stains = stain_matrix()  # rows: densities of one unit
    which = STAINS.index(stain)
    amount_of_density = np.linalg.inv(stains)[:, which]
    mix = np.eye(3) + (factor - 1) * np.outer(amount_of_density, stains[which])
    # A density is log 256 - log(level + 1); taken apart so, the constant needs no pixel.
    constant = np.log(256) * (1 - mix.sum(axis=0))
    logs = np.take(_LOGS, patches) @ mix.astype(np.float32)
    logs += constant.astype(np.float32)
    return to_levels(np.exp(logs, out=logs) - 1)
