"""One patch as a picture inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

LONGEST_SIDE = 96  # pixels: the side of a PCam patch; a larger one is shrunk to it
JPEG_QUALITY = 90  # about 6 KB a patch, where PNG takes 20


def data_uri(patch: npt.NDArray[np.uint8], quality: int = JPEG_QUALITY) -> str:
    """Return levels (H, W, 3) as a JPEG inside a URI."""
    image = Image.fromarray(np.ascontiguousarray(patch))
    if max(image.size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
