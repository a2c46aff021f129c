"""Patches from image files: PNG, JPEG and TIFF, one patch a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ml_core.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read_image(path: Path, patch_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return one RGB patch, (H, W, 3) uint8, from an image of exactly `patch_size` pixels.

    Grey and palette images become RGB and an opaque alpha channel is dropped. Raises DataError for
    a file that is missing, damaged or of another size, for transparency, and for more than 8 bits a
    channel, whose range could only be guessed.
    """
    try:
        with Image.open(path) as image:
            _check_header(image, path, patch_size)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                rgba = image.convert("RGBA")
                if np.asarray(rgba.getchannel("A")).min() < 255:
                    raise DataError(f"{path} has transparent pixels; a patch must be opaque.")
                return np.asarray(rgba.convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that can be read.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}.") from error


def _check_header(image: Image.Image, path: Path, patch_size: tuple[int, int]) -> None:
    height, width = patch_size
    if image.size != (width, height):
        raise DataError(
            f"{path} has {image.width} x {image.height} pixels; the model takes patches of "
            f"{width} x {height}. Cut patches at the training magnification; scaling would change "
            "what the model sees."
        )
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        raise DataError(f"{path} has the pixel format {image.mode}; allowed is 8-bit RGB or grey.")
