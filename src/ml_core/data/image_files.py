"""Patches from image files: PNG, JPEG and TIFF, one patch a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from ml_core.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "TIFF")  # whatever the name says: EPS, for one, would start Ghostscript
MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1")
TRANSPARENT_MODES = ("RGBA", "LA", "PA")


def read_image(path: Path, patch_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return one RGB patch, (H, W, 3) uint8, from an image of exactly `patch_size` pixels.

    Grey and palette images become RGB and an opaque alpha channel is dropped. Raises DataError for
    a file that is missing, damaged or of another size, for several images in one file, for
    transparency, and for more than 8 bits a channel, whose range could only be guessed.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_header(image, path, patch_size)
            if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
                rgba = image.convert("RGBA")
                if np.asarray(rgba.getchannel("A")).min() < 255:
                    raise DataError(f"{path} has transparent pixels; a patch must be opaque.")
                return np.asarray(rgba.convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}.") from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise DataError(f"{path} is not an image that can be read; allowed: {kinds}.") from error
    except Exception as error:  # Pillow's decoders let many kinds of error through
        raise DataError(f"{path} cannot be read: {error}.") from error


def _check_header(image: ImageFile.ImageFile, path: Path, patch_size: tuple[int, int]) -> None:
    height, width = patch_size
    if image.size != (width, height):
        raise DataError(
            f"{path} has {image.width} x {image.height} pixels; the model takes patches of "
            f"{width} x {height}. Cut patches at the training magnification; scaling would change "
            "what the model sees."
        )
    if (num_images := getattr(image, "n_frames", 1)) != 1:
        raise DataError(f"{path} holds {num_images} images; save each patch in a file of its own.")
    # Pillow calls 16-bit colour "RGB" too and drops the lower half; only the decoder's word tells.
    sixteen_bit = any(";16" in str(tile[3]) for tile in image.tile)
    if image.mode not in MODES or sixteen_bit:
        kind = f"{image.mode}, 16 bits a channel" if sixteen_bit else image.mode
        raise DataError(f"{path} has the pixel format {kind}; allowed is 8-bit RGB or grey.")
