"""Randomness as a function of (seed, epoch, index).

No random state is carried from step to step: what is drawn for a patch depends on its index alone,
so the number of workers, a resume or another batch size cannot change it.
"""

from __future__ import annotations

import random
from enum import IntEnum

import numpy as np
import numpy.typing as npt

WORDS_PER_ROW = 4  # one block of Philox4x64 per patch


class Stream(IntEnum):
    """What the words are drawn for; streams never share words."""

    ORDER = 1
    AUGMENT = 2
    DROPOUT = 3
    INIT = 4
    SYNTHETIC = 5
    BOOTSTRAP = 6
    FOLDS = 7
    PROBE = 8
    WITNESS = 9


def philox_words(seed: int, epoch: int, stream: Stream, num_rows: int) -> npt.NDArray[np.uint64]:
    """Return raw random words, shape (num_rows, 4); row i depends on (seed, epoch, stream, i) only.

    The words are numpy's Philox4x64-10 output, which NEP 19 keeps stable between releases; the
    distributions numpy derives from them are not, so callers use integer arithmetic.
    """
    counter = [0, 0, epoch, int(stream)]
    generator = np.random.Philox(key=seed, counter=counter)
    return generator.random_raw(num_rows * WORDS_PER_ROW).reshape(num_rows, WORDS_PER_ROW)


def derive_seed(seed: int, stream: Stream, *position: int) -> int:
    """Return a 63-bit seed for one consumer, for example dropout at (epoch, step)."""
    counter = [0, *([0] * (2 - len(position))), *position, int(stream)]
    return int(np.random.Philox(key=seed, counter=counter).random_raw(1)[0] >> np.uint64(1))


def seed_everything(seed: int) -> int:
    """Seed random, numpy's legacy generator and torch (all devices); return the seed."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed
