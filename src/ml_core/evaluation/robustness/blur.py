"""Gaussian blur, as two matrix products."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.robustness.levels import to_levels

_REACH = 4  # standard deviations; what lies beyond is less than 1 in 10,000


def blur(patches: npt.NDArray[np.uint8], sigma: float) -> npt.NDArray[np.uint8]:
    """Return patches (N, H, W, 3) blurred by a Gaussian of `sigma` pixels, mirrored at the edges.

    The weights are the Gaussian at whole pixels, with sum 1 (scipy's gaussian_filter with
    mode="reflect").
    """
    _, height, width, _ = patches.shape
    down, across = _weights(height, sigma), _weights(width, sigma)
    planes = patches.transpose(0, 3, 1, 2).astype(np.float32)  # (N, 3, H, W)
    return to_levels((down @ planes @ across.T).transpose(0, 2, 3, 1))


@lru_cache(maxsize=32)
def _weights(size: int, sigma: float) -> npt.NDArray[np.float32]:
    """Return what each pixel of a line takes from each: (size, size), rows with sum 1."""
    reach = int(_REACH * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    unfolded = (np.arange(size)[:, None] + offsets) % (2 * size)
    sources = np.where(unfolded < size, unfolded, 2 * size - 1 - unfolded)  # mirrored: cba|abc|cba
    weights = np.zeros((size, size))
    np.add.at(weights, (np.arange(size)[:, None], sources), kernel)
    return weights.astype(np.float32)
