"""A few patches at a time, and what several measures need of them, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

# ITU-R BT.601 luma, as in JPEG.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Block:
    """`levels`: patches (n, H, W, 3) as uint8 grey levels; n is small, so that all stays in cache.

    Values that were not finite are 0 here and those out of range are clipped; what was wrong with
    them is measured before, on the stored values.
    """

    levels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.levels)

    @cached_property
    def pixels(self) -> npt.NDArray[np.float32]:
        """The grey levels 0..255 as (n, H, W, 3) float32."""
        return self.levels.astype(np.float32)

    @cached_property
    def luma(self) -> npt.NDArray[np.float32]:
        """Brightness 0..255, (n, H, W) float32."""
        return self.pixels @ LUMA


# One value, or one row of values, per patch of the block: {"name": (n,) or (n, d)}.
Measure = Callable[[Block], Mapping[str, npt.NDArray[Any]]]
