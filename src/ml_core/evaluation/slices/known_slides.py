"""Which slide each patch of a split is of, as far as that is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.slices.error_counts import Bools
from ml_core.evaluation.slices.few_slides import MIN_SLIDES
from ml_core.metrics.arrays import Ints


@dataclass(frozen=True)
class KnownSlides:
    """`numbers` (N,) count the slides from 0; None where a patch is of an unknown slide."""

    numbers: Ints | None
    num_slides: int
    num_unknown: int  # patches

    @classmethod
    def of(cls, slides: npt.NDArray[np.object_] | None, num_patches: int) -> KnownSlides:
        """Return the slides named in `slides` (N,), where None, NaN and "" are unknown.

        They are numbered by name, so that the order of the patches changes no result. Raises
        ValueError for another number of them than `num_patches`.
        """
        if slides is None:
            return cls(None, 0, num_patches)
        if len(slides) != num_patches:
            raise ValueError(f"{len(slides)} slides are named for {num_patches} patches.")
        unknown = pd.isna(slides) | (np.asarray(slides) == "")
        named, numbers = np.unique(np.asarray(slides)[~unknown].astype(str), return_inverse=True)
        return cls(None if unknown.any() else numbers, len(named), int(unknown.sum()))

    @property
    def are_enough(self) -> bool:
        """Whether the spread from slide to slide can be told."""
        return self.numbers is not None and self.num_slides >= MIN_SLIDES

    def num_of(self, mask: Bools) -> int | None:
        """Return how many slides the patches of `mask` are of, None where that is not known."""
        return None if self.numbers is None else len(np.unique(self.numbers[mask]))
