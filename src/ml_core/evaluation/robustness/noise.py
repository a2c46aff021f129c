"""Gaussian noise that is a function of the patch."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.robustness.levels import to_levels
from ml_core.reproducibility import WORDS_PER_ROW, Stream, philox_words

_NORMALS_PER_WORD = 4  # 16 bits each


def add_noise(patches: npt.NDArray[np.uint8], sigma: float) -> npt.NDArray[np.uint8]:
    """Return patches with independent Gaussian noise of `sigma` grey levels on every value.

    The noise is keyed by the patch's own pixels: a patch gets the same in whatever batch, and the
    same shape of it at every strength, so that a curve does not jump by luck.
    """
    noise = np.stack([_noise_of(patch) for patch in patches])
    return to_levels(patches + np.float32(sigma) * noise)


def _noise_of(patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    digest = hashlib.blake2b(patch.tobytes(), digest_size=8).digest()
    num_rows = -(-patch.size // (_NORMALS_PER_WORD * WORDS_PER_ROW))
    words = philox_words(int.from_bytes(digest, "little"), 0, Stream.PROBE, num_rows)
    sixteenths = words.astype("<u8", copy=False).view("<u2").ravel()[: patch.size]
    return np.take(_quantiles(), sixteenths).reshape(patch.shape)


@cache
def _quantiles() -> npt.NDArray[np.float32]:
    """Return the normal quantiles of 2**16 equal shares: no release of numpy can change them."""
    from scipy.special import ndtri

    shares = (np.arange(2**16) + 0.5) / 2**16
    quantiles: npt.NDArray[np.float32] = ndtri(shares).astype(np.float32)
    return quantiles
