"""Colours of a patch, and nothing of its shapes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Patches = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CENTRE = 32  # pixels: the label is about the centre only
LEVEL_BITS = 3  # 8 levels of each channel
NUM_BINS = 8**LEVEL_BITS


def mean_colour(patches: Patches) -> Floats:
    """Return the mean R, G, B of the centre, then of the whole, of patches (n, H, W, 3): (n, 6)."""
    means = [_mean(centre(patches)), _mean(patches)]
    return np.concatenate(means, axis=1, dtype=np.float32)


def colour_histogram(patches: Patches) -> Floats:
    """Return the square roots of the shares of pixels in 8 x 8 x 8 bins of RGB: (n, 512) float32.

    Square roots make the inner product of two histograms the Bhattacharyya coefficient, and keep a
    few common colours from drowning the rest (Arandjelovic and Zisserman 2012, "RootSIFT").
    """
    num, height, width, _ = patches.shape
    red, green, blue = (
        (patches[..., channel] >> (8 - LEVEL_BITS)).astype(np.int32) for channel in range(3)
    )
    bins = (red << 2 * LEVEL_BITS) | (green << LEVEL_BITS) | blue
    bins += (np.arange(num, dtype=np.int32) * NUM_BINS)[:, None, None]
    counts = np.bincount(bins.ravel(), minlength=num * NUM_BINS).reshape(num, NUM_BINS)
    roots: Floats = np.sqrt(counts / (height * width)).astype(np.float32)
    return roots


def centre(patches: Patches) -> Patches:
    """Return the centre 32 x 32 of patches (n, H, W, 3); all of a side that is shorter."""
    top, left = (max(0, extent // 2 - CENTRE // 2) for extent in patches.shape[1:3])
    return patches[:, top : top + CENTRE, left : left + CENTRE]


def _mean(patches: Patches) -> npt.NDArray[np.float64]:
    # rows first, as whole rows of bytes: a third of the time of a mean over pixels
    sums = patches.sum(axis=1, dtype=np.uint32).sum(axis=1, dtype=np.uint64)
    means: npt.NDArray[np.float64] = sums / (patches.shape[1] * patches.shape[2])
    return means
