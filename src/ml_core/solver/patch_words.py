"""The random word of each patch in an epoch, from which its dropout is drawn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.numerics.keyed_dropout import dropout_words

Words = npt.NDArray[np.uint64]


class PatchWords:
    """Words by (epoch, index), drawn for an epoch at once and for as many rows as were asked of."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch = 0
        self._words: Words = np.empty(0, np.uint64)

    def of(self, epoch: int, index: npt.NDArray[np.int64]) -> Words:
        """Return the words (B,) of the patches `index` (B,), rows in the source file."""
        num_rows = int(index.max(initial=-1)) + 1
        if epoch != self._epoch or num_rows > len(self._words):
            # one more doubling than needed, so that an epoch in random order draws a few times
            wanted = max(2 * num_rows, len(self._words))
            self._epoch, self._words = epoch, dropout_words(self.seed, epoch, wanted)
        return self._words[index]
