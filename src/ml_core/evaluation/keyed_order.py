"""Patches in a random order that follows from the seed and their index alone."""

from __future__ import annotations

import numpy as np

from ml_core.metrics.arrays import Ints
from ml_core.reproducibility import Stream, philox_words


def keyed_order(index: Ints, seed: int, purpose: int) -> Ints:
    """Return the positions (N,) of `index` (N,) in random order, another one for each `purpose`.

    The order of the patches is the same whatever the order they come in. Raises ValueError for a
    patch that is there twice.
    """
    if len(np.unique(index)) != len(index):
        raise ValueError(f"{len(index) - len(np.unique(index))} patches are there more than once.")
    words = philox_words(seed, purpose, Stream.PROBE, int(index.max(initial=-1)) + 1)[index, 0]
    order: Ints = np.lexsort((index, words))
    return order
