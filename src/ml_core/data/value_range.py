"""What a stored value means as a grey level: established from the data, never assumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.errors import DataError

# A small block at 1e5 or a frame of zeros must not decide, so a patch speaks by its 99th
# percentile, and nine of ten patches must agree.
_LEVEL_QUANTILE = 0.99
_AGREEMENT = 0.9
# A tissue patch in 0..255 that stays below 8 is black to the eye: such a file is in another unit.
_DARKEST_8_BIT = 8
# Grey levels minus their mean over their deviation hardly ever leave -10..10.
_STANDARDISED = 20
# 12-bit images in uint16 stay below this; they are refused rather than read sixteen times too dark.
_DARKEST_16_BIT = 4096


class ValueRangeError(DataError):
    """The values of a file fit none of the ranges that patches are stored in."""


@dataclass(frozen=True)
class ValueRange:
    """The range 0..`high` that a file's values span; `high` is 1, 255 or 65535."""

    high: int

    def __str__(self) -> str:
        return f"0..{self.high}"

    def to_levels(self, raw: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Return `raw` on the scale 0..255 as float32, neither rounded nor clipped."""
        levels = raw.astype(np.float32)
        if self.high != 255:
            levels *= np.float32(255 / self.high)
        return levels


BYTES = ValueRange(255)


def establish_value_range(sample: npt.NDArray[np.generic], where: str) -> ValueRange:
    """Return the range that the sampled patches (n, H, W, 3) speak for.

    Each patch votes by its 99th percentile; black patches abstain.
    Raises ValueRangeError, saying what was seen, where values are negative or the votes differ.
    """
    values = sample.reshape(len(sample), -1).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    values = values[~np.isnan(values).all(axis=1)]
    if len(values) == 0:
        raise ValueRangeError(f"{where}: no finite value in the patches that were sampled.")
    lows = np.nanquantile(values, 1 - _LEVEL_QUANTILE, axis=1)
    levels = np.nanquantile(values, _LEVEL_QUANTILE, axis=1)
    if (lows < 0).any():
        seen = f"{(lows < 0).mean():.0%} of them go below zero"
        if np.nanmax(np.abs(values)) < _STANDARDISED and (lows < 0).mean() > _AGREEMENT / 2:
            seen += ", as standardised values do (minus the mean, over the deviation)"
        raise _refusal(where, sample.dtype, seen, lows)
    levels = levels[levels > 0]
    if len(levels) == 0:
        raise _refusal(where, sample.dtype, "all of them are black", lows)
    votes = {
        1: (levels <= 1) & (sample.dtype.kind == "f"),
        255: (levels >= _DARKEST_8_BIT) & (levels <= 255),
        65535: (levels >= _DARKEST_16_BIT) & (levels <= 65535) & (sample.dtype == np.uint16),
    }
    for high, vote in votes.items():
        if vote.mean() >= _AGREEMENT:
            return ValueRange(high)
    raise _refusal(where, sample.dtype, "they fit none of these ranges", levels)


def _refusal(
    where: str, dtype: np.dtype[np.generic], seen: str, levels: npt.NDArray[np.float64]
) -> ValueRangeError:
    spread = f"{levels.min():.4g} to {levels.max():.4g}"
    return ValueRangeError(
        f"{where}: cannot tell what its {dtype} values mean. Of the sampled patches, {seen} "
        f"(robust extremes from {spread}). Allowed: 0..1 (float), 0..255, 0..65535 (uint16). "
        "Store the patches as uint8 in 0..255."
    )
