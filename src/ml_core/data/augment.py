"""Augmentation by whole batches, on the batch's device, keyed by patch.

What happens to a patch is a function of (seed, epoch, index): not of the batch it comes in, of its
place there, or of who reads it; nor, to the bit, of the machine.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml_core.numerics.elementary import exp, log
from ml_core.reproducibility import Stream, philox_words

Words = npt.NDArray[np.uint64]
Vector = tuple[float, float, float]

# Optical densities (R, G, B) of haematoxylin and eosin: Ruifrok and Johnston, Quantification of
# histochemical staining by color deconvolution, Anal Quant Cytol Histol 23:291-299, 2001.
_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_EOSIN = (0.07, 0.99, 0.11)

NUM_DIHEDRAL = 8

# Stains are mixed as whole numbers: log(level + 1) in 2^17 steps from 0 to log 256, each of 2^8
# units. A step is 0.005 grey levels where it is largest, and 2^31 units are 90 times the range.
_LOG_256 = 8 * float.fromhex("0x1.62e42fefa39efp-1")
_NUM_STEPS = 1 << 17
_UNIT_BITS = 8
_PATCHES_IN_CACHE = 8  # of 1, 2, 4, 8, 16 the fastest
_UNITS = (_NUM_STEPS << _UNIT_BITS) / _LOG_256  # units in 1


def augment(
    images: Tensor, words: Words, dihedral: bool = True, stain_jitter: float = 0.0
) -> Tensor:
    """Return augmented images (B, 3, H, W): uint8, or float32 in 0..255 with stain jitter.

    `words` (B, 4) are the random words of each patch, from `philox_words`. The memory format of
    `images` is kept. Dihedral: one of the 8 flips and rotations, from word 0. Stain jitter s: the
    amount of haematoxylin, eosin and the residual is scaled by 1 ± s and shifted by ± s, uniformly,
    from words 1, 2 and 3, as in Tellez et al., IEEE Trans Med Imaging 37:2126-2136, 2018.
    """
    if dihedral:
        images = apply_dihedral(images, (words[:, 0] >> np.uint64(61)).astype(np.int64))
    if stain_jitter > 0:
        images = jitter_stains(images, words[:, 1:4], stain_jitter)
    return images


def apply_dihedral(images: Tensor, codes: npt.NDArray[np.int64]) -> Tensor:
    """Return images (B, 3, H, W), each under the symmetry of the square its code 0..7 names.

    Bit 0 flips left-right, bit 1 flips up-down, then bit 2 transposes. Code 0 changes nothing.
    """
    assert images.shape[2] == images.shape[3], "a patch that is not square cannot be turned"
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, 3)
    if images.device.type == "cpu" and pixels.is_contiguous():
        return _turn_pixels(pixels.numpy(), codes).permute(0, 3, 1, 2)
    out = torch.empty_like(images)
    for code in range(NUM_DIHEDRAL):
        where = torch.from_numpy(np.flatnonzero(codes == code)).to(images.device)
        flips = [dim for dim, bit in ((3, 1), (2, 2)) if code & bit]
        turned = images[where].flip(flips)
        out[where] = turned.transpose(2, 3) if code & 4 else turned
    return out


def _turn_pixels(pixels: npt.NDArray[np.generic], codes: npt.NDArray[np.int64]) -> Tensor:
    """Return (B, H, W, 3) with a pixel's three values moved as one, 7 times faster than apart."""
    whole = pixels.view(f"V{3 * pixels.itemsize}")[..., 0]  # (B, H, W)
    out = np.empty_like(whole)
    for code in range(NUM_DIHEDRAL):
        where = np.flatnonzero(codes == code)
        turned = whole[where][:, :: -1 if code & 2 else 1, :: -1 if code & 1 else 1]
        out[where] = turned.transpose(0, 2, 1) if code & 4 else turned
    return torch.from_numpy(out[..., None].view(pixels.dtype))


def jitter_stains(images: Tensor, words: Words, strength: float) -> Tensor:
    """Return float32 images in 0..255 whose stains are scaled and shifted, by `words` (B, 3)."""
    mix, constant = _mixtures(words, strength)
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, 3)
    levels = torch.empty(pixels.shape, device=images.device)
    table = _level_table(images.device)
    step = _PATCHES_IN_CACHE if images.device.type == "cpu" else max(1, len(images))
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        given = pixels[part].flatten(1, 2)  # (b, H * W, 3)
        mixed = _look_up if given.dtype == torch.uint8 else _compute
        steps = (mixed(given, mix[part], constant[part]) >> _UNIT_BITS).clamp_(0, _NUM_STEPS)
        torch.index_select(table, 0, steps.view(-1), out=levels[part].view(-1))
    if pixels.is_floating_point():  # whole numbers know no NaN, and whoever watches for it must
        levels.masked_fill_(~((pixels > -1) & (pixels < math.inf)), math.nan)
    return levels.permute(0, 3, 1, 2).contiguous(memory_format=_memory_format(images))


def _mixtures(
    words: Words, strength: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return matrix (B, 3, 3) and constant (B, 3), in units, that make new logarithms of old ones.

    A density is log 256 - log(level + 1): 0 for white, 5.5 for black. Density -> amounts of stain
    -> scaled and shifted -> density is one matrix per patch; taken apart so, it applies to
    log(level + 1) itself, and the rest joins the constant.
    """
    stains = stain_matrix()
    inverse = _inverse(stains)
    scales = 1 + strength * _uniform(words >> np.uint64(32))  # (B, 3)
    shifts = strength * _uniform(words & np.uint64(0xFFFFFFFF))  # (B, 3)
    # sums of three written out: a matrix product may fuse or reorder them
    scaled = scales[:, :, None] * stains  # (B, 3, 3)
    terms = [inverse[None, :, k, None] * scaled[:, None, k, :] for k in range(3)]
    mix = terms[0] + terms[1] + terms[2]
    offset = _sum_of_three(shifts[:, :, None] * stains)
    constant = _LOG_256 * (1 - _sum_of_three(mix)) - offset
    return mix * _UNITS, constant * _UNITS + 2 ** (_UNIT_BITS - 1)  # the half rounds to steps


def _look_up(
    pixels: Tensor, mix: npt.NDArray[np.float64], constant: npt.NDArray[np.float64]
) -> Tensor:
    """Return the new logarithms of `pixels` uint8 (b, N, 3) in units, int32 (b, N, 3).

    Each level of each channel has three numbers in a table of its patch, so a pixel needs three
    look-ups and two sums.
    """
    num, device = len(pixels), pixels.device
    logs = _log_table().numpy()  # (256,)
    tables = np.zeros((num, 3, 256, 4), np.int32)  # three numbers and a gap: 16 bytes
    tables[..., :3] = np.rint(mix[:, :, None, :] * logs[:, None])
    tables[:, 0, :, :3] += np.rint(constant[:, None, :]).astype(np.int32)
    # as one element of 16 bytes they are moved at once, twice as fast as row by row
    rows = torch.from_numpy(tables.view(np.complex128)[..., 0]).to(device)  # (b, 3, 256)
    first = torch.arange(0, 256 * num, 256, dtype=torch.int32, device=device)
    index = pixels.to(torch.int32) + first[:, None, None]  # (b, N, 3)
    total = _numbers(rows[:, 0], index[..., 0])
    total += _numbers(rows[:, 1], index[..., 1])
    total += _numbers(rows[:, 2], index[..., 2])
    return total[..., :3].view(num, -1, 3)


def _numbers(rows: Tensor, index: Tensor) -> Tensor:
    found = rows.flatten().index_select(0, index.flatten())
    return torch.view_as_real(found).view(torch.int32)  # (b * N, 4)


def _compute(
    pixels: Tensor, mix: npt.NDArray[np.float64], constant: npt.NDArray[np.float64]
) -> Tensor:
    """Return what `_look_up` returns, of levels that need not be whole; 10 times slower."""
    logs = log(pixels.to(torch.float64) + 1)  # (b, N, 3)
    by = torch.from_numpy(mix).to(pixels.device)
    total = torch.from_numpy(np.rint(constant)).to(pixels.device)[:, None, :]
    for channel in range(3):
        total = total + (logs[..., channel, None] * by[:, None, channel, :]).round()
    return total.to(torch.int32)


@functools.cache
def _log_table() -> Tensor:
    """Return log(level + 1) of the 256 levels, float64."""
    return log(torch.arange(1, 257, dtype=torch.float64))


@functools.cache
def _level_table(device: torch.device) -> Tensor:
    """Return the level at each of the steps, from 0 to 255, float32 (2^17 + 1,)."""
    steps = torch.arange(_NUM_STEPS + 1, dtype=torch.float64)
    levels = exp(steps * (_LOG_256 / _NUM_STEPS)) - 1
    return levels.to(torch.float32).to(device)


class Augmenter:
    """Augments the batches of an epoch: `set_epoch`, then call it with each batch's index.

    `num_rows` is the number of rows in the source file, so that every index has its words.
    """

    def __init__(
        self, seed: int, num_rows: int, *, dihedral: bool = True, stain_jitter: float = 0.0
    ) -> None:
        self.seed = seed
        self.num_rows = num_rows
        self.dihedral = dihedral
        self.stain_jitter = stain_jitter
        self._words: Words = np.empty((0, 4), np.uint64)

    def set_epoch(self, epoch: int) -> None:
        """Draw the words of `epoch` for every row of the source file, 32 bytes each."""
        self._words = philox_words(self.seed, epoch, Stream.AUGMENT, self.num_rows)

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """Return `images` augmented; `index` (B,) are their rows in the source file."""
        words = self._words[index.cpu().numpy()]
        return augment(images, words, self.dihedral, self.stain_jitter)


def stain_matrix() -> npt.NDArray[np.float64]:
    """Return unit densities of haematoxylin, eosin and what neither explains, as rows."""
    haematoxylin, eosin = _unit(_HAEMATOXYLIN), _unit(_EOSIN)
    return np.array([haematoxylin, eosin, _unit(_cross(haematoxylin, eosin))])


def _unit(vector: Vector) -> Vector:
    x, y, z = vector
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _inverse(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the inverse of a 3 x 3 matrix: cross products of its rows over the determinant."""
    a, b, c = rows.tolist()
    columns = np.array([_cross(b, c), _cross(c, a), _cross(a, b)])
    x, y, z = columns[0].tolist()
    inverse: npt.NDArray[np.float64] = columns.T / (a[0] * x + a[1] * y + a[2] * z)
    return inverse


def _sum_of_three(terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum over the middle of three axes, from its first term to its last."""
    return terms[:, 0] + terms[:, 1] + terms[:, 2]


def _uniform(words: Words) -> npt.NDArray[np.float64]:
    """Return numbers in [-1, 1) from the low 32 bits."""
    return words.astype(np.float64) / 2**31 - 1


def _memory_format(images: Tensor) -> torch.memory_format:
    is_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
