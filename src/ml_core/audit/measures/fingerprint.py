"""What a patch shows at a glance, in 64 numbers that brightness and contrast do not change."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.audit.measures.block import Block

Floats = npt.NDArray[np.float32]

NUM_FREQUENCIES = 8  # along each side: details down to a twelfth of a patch

# Luma that varies less than this, in grey levels, in all the low frequencies together is a flat
# patch with rounding noise: its pattern means nothing. Textured real patches have 3.8 or more.
_MIN_AMPLITUDE = 0.01


def measure_fingerprint(block: Block) -> dict[str, npt.NDArray[Any]]:
    """Return `descriptors` (n, 64) float32 and `perceptual_hash` (n,) uint64 of a block.

    A descriptor is the low-frequency corner (8, 8) of the two-dimensional DCT-II of the luma, row
    by row, without the mean ([0, 0] is 0) and scaled to length 1; all zero for a flat patch.
    Mirroring a patch changes only signs in it and transposing swaps its axes (see `mirror_signs`),
    so that one descriptor serves all eight orientations.

    The hash has a bit per coefficient, set where it is positive (Zauner 2010, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", with the sign for the median), and is the
    smallest of the hashes of all orientations: a patch and its mirror images share it. It differs
    from the pHash of other libraries.
    """
    spectrum = _low_frequencies(block.luma)  # (n, 8, 8)
    spectrum[:, 0, 0] = 0
    _, height, width = block.luma.shape
    amplitude = np.sqrt(np.einsum("nuv,nuv->n", spectrum, spectrum))
    flat = amplitude < _MIN_AMPLITUDE * np.sqrt(height * width)
    spectrum[flat] = 0
    amplitude[flat] = 1
    return {
        "perceptual_hash": _hash_signs(spectrum, turns=height == width),
        "descriptors": (spectrum / amplitude[:, None, None]).reshape(len(block), 64),
    }


def mirror_signs() -> Floats:
    """Return (4, 8, 8): what mirroring multiplies a spectrum by.

    In turn: nothing, left and right exchanged, top and bottom exchanged, both. The DCT-II base
    functions of even frequency are symmetric, those of odd frequency change sign.
    """
    sign = (-1.0) ** np.arange(NUM_FREQUENCIES)
    even = np.ones(NUM_FREQUENCIES)
    sides = [(even, even), (even, sign), (sign, even), (sign, sign)]
    return np.stack([np.outer(rows, columns) for rows, columns in sides]).astype(np.float32)


@cache
def _cosines(size: int) -> Floats:
    """Return (8, size), the orthonormal DCT-II base functions of low frequency."""
    frequency, place = np.ogrid[:NUM_FREQUENCIES, :size]
    base = np.cos(np.pi * frequency * (place + 0.5) / size) * np.sqrt(2 / size)
    base[0] /= np.sqrt(2)
    return np.asarray(base, np.float32)


def _low_frequencies(luma: Floats) -> Floats:
    n, height, width = luma.shape
    along_rows = luma.reshape(n * height, width) @ _cosines(width).T
    spectrum: Floats = _cosines(height) @ along_rows.reshape(n, height, NUM_FREQUENCIES)
    return spectrum


def _hash_signs(spectrum: Floats, turns: bool) -> npt.NDArray[np.uint64]:
    """Return the smallest hash of all orientations; quarter turns are some if `turns`."""
    mirrored = _pack(mirror_signs() < 0)  # the bits that each mirroring inverts
    mirrored_hashes = [_pack(spectrum > 0)[:, None] ^ mirrored]
    if turns:
        mirrored_hashes.append(_pack(spectrum.transpose(0, 2, 1) > 0)[:, None] ^ mirrored)
    smallest: npt.NDArray[np.uint64] = np.concatenate(mirrored_hashes, axis=1).min(axis=1)
    return smallest


def _pack(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Return (n,) of (n, 8, 8) bits, the first as the highest."""
    packed = np.packbits(bits.reshape(len(bits), 64), axis=1)
    return packed.view(">u8")[:, 0].astype(np.uint64)
