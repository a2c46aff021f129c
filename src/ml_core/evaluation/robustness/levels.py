"""Brightness, contrast and hue: changes of a pixel by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Patches = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def to_levels(values: npt.NDArray[np.floating]) -> Patches:
    """Return the nearest grey levels 0..255; what lies outside is cut off, as in a camera."""
    levels: Patches = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def scale_brightness(patches: Patches, factor: float) -> Patches:
    """Return patches with every level times `factor`: more or less light through the slide."""
    return np.take(to_levels(factor * np.arange(256.0)), patches)


def scale_contrast(patches: Patches, factor: float) -> Patches:
    """Return patches (N, H, W, 3) with the distance to each patch's own mean colour times `factor`.

    The mean colour stays, so that contrast moves and brightness and hue do not.
    """
    colours = patches.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return to_levels(colours + np.float32(factor) * (patches - colours))


def rotate_hue(patches: Patches, degrees: float) -> Patches:
    """Return patches whose colours are turned about the grey axis, from red towards green.

    R + G + B of a pixel and its distance from grey stay; 120 degrees takes red to green, green to
    blue and blue to red. The matrix is Rodrigues's, about (1, 1, 1).
    """
    angle = np.deg2rad(degrees)
    same = (1 + 2 * np.cos(angle)) / 3
    onward, back = ((1 - np.cos(angle)) / 3 + s * np.sin(angle) / np.sqrt(3) for s in (1, -1))
    turn = np.array([[same, onward, back], [back, same, onward], [onward, back, same]])  # row: from
    return to_levels(patches.astype(np.float32) @ turn.astype(np.float32))
