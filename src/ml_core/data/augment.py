"""Augmentation by whole batches, on the batch's device, keyed by patch.

What happens to a patch is a function of (seed, epoch, index): not of the batch it comes in, of its
place there, or of who reads it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml_core.reproducibility import Stream, philox_words

Words = npt.NDArray[np.uint64]

# Optical densities (R, G, B) of haematoxylin and eosin: Ruifrok and Johnston, Quantification of
# histochemical staining by color deconvolution, Anal Quant Cytol Histol 23:291-299, 2001.
_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_EOSIN = (0.07, 0.99, 0.11)

NUM_DIHEDRAL = 8


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
    stains = stain_matrix()
    scales = 1 + strength * _uniform(words >> np.uint64(32))  # (B, 3)
    shifts = strength * _uniform(words & np.uint64(0xFFFFFFFF))  # (B, 3)
    # density -> amounts of stain -> scaled and shifted -> density, all in one matrix per patch
    mix = np.linalg.inv(stains) @ (scales[:, :, None] * stains)  # (B, 3, 3)
    offset = shifts @ stains  # (B, 3)

    # A density is log 256 - log(level + 1): 0 for white, 5.5 for black. Taken apart so, the
    # constant joins the offset, and pixels need one logarithm, one product, one exponential.
    constant = np.log(256) * (1 - mix.sum(axis=1)) - offset  # (B, 3)
    logs = (images.float() + 1).log_().flatten(2)  # (B, 3, H * W)
    mixed = torch.baddbmm(_to(constant[:, :, None], images), _to(mix, images).mT, logs)
    levels = mixed.exp_().sub_(1).clamp_(0, 255).reshape(images.shape)
    return levels.contiguous(memory_format=_memory_format(images))


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
    haematoxylin, eosin = (np.array(v) / np.linalg.norm(v) for v in (_HAEMATOXYLIN, _EOSIN))
    residual = np.cross(haematoxylin, eosin)
    return np.stack([haematoxylin, eosin, residual / np.linalg.norm(residual)])


def _uniform(words: Words) -> npt.NDArray[np.float64]:
    """Return numbers in [-1, 1) from the low 32 bits."""
    return words.astype(np.float64) / 2**31 - 1


def _to(array: npt.NDArray[np.float64], images: Tensor) -> Tensor:
    return torch.from_numpy(array.astype(np.float32)).to(images.device)


def _memory_format(images: Tensor) -> torch.memory_format:
    is_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
