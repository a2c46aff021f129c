"""What the pixels of each patch amount to: colours, stains, tissue, sharpness, JPEG grid, hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.measures.block import Block

Floats = npt.NDArray[np.float32]

BLACK, WHITE = 5, 250  # a pixel is black up to, white from this level, in every channel
# Macenko et al. 2009 count a pixel as tissue from an optical density (natural log) of 0.15 on.
TISSUE_LUMA = 255 * np.exp(-0.15)
JPEG_GRID = 8
_SMALLEST_STEP = 0.01  # grey levels; squares without any step inside are not divided by 0
# Optical density of one unit of stain in R, G and B; Ruifrok and Johnston 2001.
STAINS = {"haematoxylin": (0.65, 0.704, 0.286), "eosin": (0.072, 0.990, 0.105)}
# Least squares: optical density (3,) -> amounts of haematoxylin and eosin (2,).
_UNMIX = np.linalg.pinv(np.array(list(STAINS.values())).T)  # (2, 3)


def measure_pixels(block: Block) -> Mapping[str, npt.NDArray[Any]]:
    """Return the columns below, (n,) each; grey levels are 0..255, shares and amounts 0 or more.

    content_hash            first 32 hex digits of the SHA-256 of the levels, row by row
    min_, max_, mean_, std_ of channels r, g and b
    std, std_luma           deviation of all values, and of the brightness
    share_black, _white     pixels with every channel <= 5, >= 250
    share_saturated         values at exactly 0 or 255
    tissue_share            pixels darker than an optical density of 0.15
    haematoxylin, eosin     mean amounts, by linear unmixing of the mean optical density
    focus                   variance of the Laplacian of the brightness (Pech-Pacheco et al. 2000)
    blockiness              brightness steps across the borders of an 8x8 grid over those elsewhere
    flat_share              rows, or columns if they are more, without any change of brightness
    """
    colours = _measure_colours(block)
    return {
        "content_hash": _hash_patches(block.levels),
        **colours,
        **_measure_extremes(block.levels, colours),
        **_measure_stains(block),
        **_measure_structure(block.luma),
    }


def is_constant(patches: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which patches of a table are of one colour throughout."""
    spreads = [patches[f"max_{c}"].to_numpy() - patches[f"min_{c}"].to_numpy() for c in "rgb"]
    constant: npt.NDArray[np.bool_] = np.max(spreads, axis=0) == 0
    return constant


def _hash_patches(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.str_]:
    return np.array(
        [hashlib.sha256(patch).hexdigest()[:32] for patch in np.ascontiguousarray(levels)]
    )


def _by_column(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (n, H, W * 3): reducing it over H runs along memory, which is 10 times as fast."""
    n, height, width, channels = values.shape
    return values.reshape(n, height, width * channels)


def _measure_colours(block: Block) -> dict[str, npt.NDArray[Any]]:
    n, height, width, _ = block.levels.shape
    lines, pixels = _by_column(block.levels), _by_column(block.pixels)
    lowest = lines.min(axis=1).reshape(n, width, 3).min(axis=1)
    highest = lines.max(axis=1).reshape(n, width, 3).max(axis=1)
    # Sums of one column of pixels are whole numbers below 2**24: exact in float32.
    total = pixels.sum(axis=1).reshape(n, width, 3).sum(axis=1, dtype=np.float64)
    squares = np.einsum("nij,nij->nj", pixels, pixels).reshape(n, width, 3)
    mean = total / (height * width)
    power = squares.sum(axis=1, dtype=np.float64) / (height * width)
    std = np.sqrt(np.maximum(power - mean**2, 0))
    std_all = np.sqrt(np.maximum(power.mean(axis=1) - mean.mean(axis=1) ** 2, 0))
    columns = {
        f"{name}_{channel}": values[:, c].astype(np.float32)
        for name, values in (("min", lowest), ("max", highest), ("mean", mean), ("std", std))
        for c, channel in enumerate("rgb")
    }
    return {**columns, "std": std_all.astype(np.float32)}


def _measure_extremes(
    levels: npt.NDArray[np.uint8], colours: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Floats]:
    """Count pixels only in patches whose extremes show that there can be some."""
    lows = np.stack([colours[f"min_{c}"] for c in "rgb"], axis=1)
    highs = np.stack([colours[f"max_{c}"] for c in "rgb"], axis=1)
    black, white, saturated = np.zeros((3, len(levels)), np.float32)
    for i in np.flatnonzero((lows <= BLACK).all(axis=1)):
        red, green, blue = levels[i, ..., 0], levels[i, ..., 1], levels[i, ..., 2]
        black[i] = (np.maximum(np.maximum(red, green), blue) <= BLACK).mean()
    for i in np.flatnonzero((highs >= WHITE).all(axis=1)):
        red, green, blue = levels[i, ..., 0], levels[i, ..., 1], levels[i, ..., 2]
        white[i] = (np.minimum(np.minimum(red, green), blue) >= WHITE).mean()
    for i in np.flatnonzero((lows == 0).any(axis=1) | (highs == 255).any(axis=1)):
        at_an_end = np.count_nonzero(levels[i] == 0) + np.count_nonzero(levels[i] == 255)
        saturated[i] = at_an_end / levels[i].size
    return {"share_black": black, "share_white": white, "share_saturated": saturated}


def _measure_stains(block: Block) -> dict[str, Floats]:
    n, height, width, _ = block.levels.shape
    log_levels = np.log(block.pixels + np.float32(1))
    total = _by_column(log_levels).sum(axis=1).reshape(n, width, 3).sum(axis=1, dtype=np.float64)
    density = (np.log(256) - total / (height * width)) / np.log(10)  # (n, 3), 0 where white
    amounts = np.maximum(density @ _UNMIX.T, 0).astype(np.float32)  # (n, 2)
    tissue = (block.luma < TISSUE_LUMA).reshape(n, -1).mean(axis=1, dtype=np.float32)
    return {"tissue_share": tissue, **dict(zip(STAINS, amounts.T, strict=True))}


def _measure_structure(luma: Floats) -> dict[str, Floats]:
    n, height, width = luma.shape
    across = np.abs(luma[:, :, 1:] - luma[:, :, :-1])  # (n, H, W - 1)
    down = np.abs(luma[:, 1:] - luma[:, :-1])  # (n, H - 1, W)
    # Sums along rows as matrix products: numpy's own reduction of short rows is 5 times slower.
    row_steps = across @ np.ones(width - 1, np.float32)  # (n, H)
    down_steps = down @ np.ones(width, np.float32)  # (n, H - 1)
    flat_rows = (row_steps == 0).mean(axis=1)
    flat_columns = (down.sum(axis=1) == 0).mean(axis=1)
    return {
        "std_luma": luma.reshape(n, -1).std(axis=1),
        "focus": _laplacian_variance(luma),
        "blockiness": _blockiness(across.sum(axis=1) / height, down_steps / width),
        "flat_share": np.maximum(flat_rows, flat_columns).astype(np.float32),
    }


def _laplacian_variance(luma: Floats) -> Floats:
    centre = luma[:, 1:-1, 1:-1]
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    laplacian += luma[:, 1:-1, :-2]
    laplacian += luma[:, 1:-1, 2:]
    laplacian -= 4 * centre
    variance: Floats = laplacian.reshape(len(luma), -1).var(axis=1)
    return variance


def _blockiness(across: Floats, down: Floats) -> Floats:
    """Return the ratio for mean steps `across` (n, W - 1) and `down` (n, H - 1); 1 without steps.

    It sees a patch that was itself saved as JPEG; of an image saved before the patch was cut out,
    the grid lies elsewhere.
    """
    steps = np.concatenate([across, down], axis=1)
    on_border = np.concatenate(
        [np.arange(1, each.shape[1] + 1) % JPEG_GRID == 0 for each in (across, down)]
    )
    border, inside = steps[:, on_border].mean(axis=1), steps[:, ~on_border].mean(axis=1)
    ratio = border / np.maximum(inside, _SMALLEST_STEP)
    return np.where(border + inside > 0, ratio, 1).astype(np.float32)
