"""A map drawn over its patch, as a picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats
from ml_core.page.figure_style import BLUE, VERMILLION

_STRONGEST = 0.65  # share of colour where the map is largest: the tissue below stays readable
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def overlay(patch: npt.NDArray[np.uint8], saliency: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return `patch` (H, W, 3) in grey, with `saliency` (h, w) as colour over it, (H, W, 3).

    Vermillion where the map is above 0, which speaks for the class called, blue where it is below;
    the more, the larger its value against the largest of the map. The map covers the patch evenly
    and is interpolated between the middles of its cells. The patch is made grey because its own
    pink could not be told from the map's. A map that is 0, or not finite, colours nothing.
    """
    values = np.nan_to_num(np.asarray(saliency, dtype=np.float64), posinf=0.0, neginf=0.0)
    largest = np.abs(values).max(initial=0.0)
    smooth = _stretched(values / (largest or 1.0), patch.shape[0], patch.shape[1])[..., None]
    color = np.where(smooth > 0, _levels(VERMILLION), _levels(BLUE))  # (H, W, 3)
    grey = (patch @ _LUMA)[..., None]
    strength = _STRONGEST * np.abs(smooth)
    blended = (1 - strength) * grey + strength * color
    picture: npt.NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return picture


def _stretched(values: Floats, height: int, width: int) -> Floats:
    """Return `values` (h, w) at the middles of (height, width) pixels, by bilinear interpolation.

    Beyond the middles of the outermost cells they are constant.
    """
    rows, columns = _weights(values.shape[0], height), _weights(values.shape[1], width)
    stretched: Floats = rows @ values @ columns.T
    return stretched


def _weights(num_cells: int, length: int) -> Floats:
    """Return how much of each cell is in each pixel, (length, num_cells); rows sum to 1."""
    places = (np.arange(length) + 0.5) / length * num_cells - 0.5
    distances = np.abs(np.clip(places, 0, num_cells - 1)[:, None] - np.arange(num_cells))
    weights: Floats = np.clip(1 - distances, 0, None)
    return weights


def _levels(color: str) -> Floats:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)
