"""Rows of the real patches, and what a JPEG file makes of them."""

import io

import h5py
import numpy as np
from PIL import Image

from ml_core.data.layout import load_labels, split_paths


def read_patches(folder, split, rows):
    """Return (levels (n, H, W, 3) uint8, labels (n,)) of rising `rows` of a split."""
    paths = split_paths(folder, split)
    with h5py.File(paths.x) as file:
        return file["x"][rows], load_labels(paths.y)[rows]


def as_jpeg(levels, quality):
    """Return the patches as they come back from JPEG files."""
    coded = np.empty_like(levels)
    for i, patch in enumerate(levels):
        file = io.BytesIO()
        Image.fromarray(patch).save(file, "JPEG", quality=quality)
        coded[i] = np.asarray(Image.open(file))
    return coded
