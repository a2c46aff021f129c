"""Patches saved once more as JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def save_as_jpeg(patches: npt.NDArray[np.uint8], quality: float) -> npt.NDArray[np.uint8]:
    """Return patches (N, H, W, 3) as they come back from Pillow's JPEG of `quality` 1..95.

    Colour is stored at half the resolution (4:2:0), Pillow's and libjpeg's default. The 8 x 8 grid
    starts at the patch's corner; patches that were saved so before hardly change at the quality
    that they had.
    """
    saved = np.empty_like(patches)
    for number, patch in enumerate(patches):
        buffer = io.BytesIO()
        Image.fromarray(patch).save(buffer, format="JPEG", quality=int(quality))
        with Image.open(buffer) as image:
            saved[number] = np.asarray(image)
    return saved
