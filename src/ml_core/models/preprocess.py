"""What a patch goes through before the first layer: part of the model, so it is saved with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Mean and standard deviation of R, G and B over all pixels of 20,000 patches of PCam's train split
# (the first 10,000 of each class), on the 0..1 scale; 1,500 valid patches are within 0.008 of them.
PCAM_MEAN = (0.6982, 0.5387, 0.6898)
PCAM_STD = (0.2370, 0.2799, 0.2236)

NORMALIZATIONS = ("standard", "none")


class Preprocess(nn.Module):
    """Grey levels 0..255, uint8 or float, (B, C, H, W) -> float32 of the same shape and strides.

    "standard" returns (x / 255 - mean) / std with one mean and std per channel on the 0..1 scale;
    "none" returns x / 255. `mean` and `std` are buffers (0 and 1 for "none"), so the weights file
    of a model says what its inputs went through.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        normalization: str = "standard",
        mean: Sequence[float] = PCAM_MEAN,
        std: Sequence[float] = PCAM_STD,
    ) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"unknown normalization {normalization!r}; allowed: {', '.join(NORMALIZATIONS)}"
            )
        if len(mean) != len(std) or not mean:
            raise ValueError(
                f"mean has {len(mean)} values and std {len(std)}; give one of each per channel"
            )
        # A mean of 178 or a std of 60 was measured on 0..255 and would blank every patch.
        if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
            raise ValueError(
                f"mean {list(mean)} and std {list(std)} must be on the 0..1 scale, std above 0; "
                "divide statistics of grey levels by 255"
            )
        if normalization == "none":
            mean, std = [0.0] * len(mean), [1.0] * len(std)
        self.normalization = normalization
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        mean, std = _spread(self.mean, images), _spread(self.std, images)
        levels = images.to(torch.float32)
        # in place, but for what is the caller's: the same bits, and no new memory three times
        scaled = levels / 255 if levels is images else levels.div_(255)
        return scaled.sub_(mean).div_(std)  # (B, C, H, W)

    def extra_repr(self) -> str:
        return f"{self.normalization!r}, mean={self.mean.tolist()}, std={self.std.tolist()}"


def _spread(values: Tensor, images: Tensor) -> Tensor:
    """Return `values` (C,) for every pixel of a patch, in the memory format of `images`.

    Where the channels are the innermost dimension, broadcasting would go over three numbers at a
    time, at a third of the speed.
    """
    if not images.is_contiguous(memory_format=torch.channels_last):
        return values.view(-1, 1, 1)
    return values.expand(*images.shape[2:], len(values)).contiguous().permute(2, 0, 1)  # (C, H, W)
