"""Patches turned and mirrored: tissue has no way up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Patches = npt.NDArray[np.uint8]

FLIPS = {1: "left-right", 2: "up-down"}


def rotate(patches: Patches, degrees: float) -> Patches:
    """Return patches (N, S, S, 3) turned counterclockwise by a multiple of 90 degrees."""
    turns, rest = divmod(degrees, 90)
    assert rest == 0, "other angles would need pixels from outside the patch"
    assert turns % 2 == 0 or patches.shape[1] == patches.shape[2], "a patch that is not square"
    return np.rot90(patches, int(turns), axes=(1, 2))


def flip(patches: Patches, way: float) -> Patches:
    """Return patches (N, H, W, 3) mirrored left-right (1) or up-down (2)."""
    axis = {"left-right": 2, "up-down": 1}[FLIPS[int(way)]]
    return np.flip(patches, axis)
