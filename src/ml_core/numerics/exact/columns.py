"""The windows that a convolution looks at, laid out as rows of a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 2048  # windows that are laid out at a time, unless one sample has more

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """`size` windows (rows, columns) of `kernel` pixels, `stride` apart, the first at `origin`."""

    size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    origin: Pair = (0, 0)

    @property
    def count(self) -> int:
        """Windows of one sample."""
        return self.size[0] * self.size[1]

    def columns(self, images: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield chunks of samples and the windows of `images` (B, H, W, C) that are theirs.

        The windows are float64 (n * count, kernel pixels * C), in memory that the next chunk uses
        again. As many samples come at a time as have 2,048 windows, or one: so what is laid out
        stays in the cache, and the memory for it is bounded.
        """
        batch, row, column, channel = images.stride()
        seen = images.as_strided(
            (len(images), *self.size, *self.kernel, images.shape[-1]),
            (batch, self.stride[0] * row, self.stride[1] * column, row, column, channel),
            images.storage_offset() + self.origin[0] * row + self.origin[1] * column,
        )
        size = max(1, min(len(images), ROWS // max(1, self.count)))
        room = torch.empty((size, *seen.shape[1:]), dtype=torch.float64, device=images.device)
        for start in range(0, len(images), size):
            chunk = slice(start, min(start + size, len(images)))
            num = chunk.stop - start
            laid_out = room[:num].copy_(seen[chunk])
            yield chunk, laid_out.view(num * self.count, -1)
