"""Made-up models whose answer comes from a known place."""

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

CENTRE = (slice(32, 64), slice(32, 64))
CORNER = (slice(0, 16), slice(0, 16))
EVERYWHERE = (slice(None), slice(None))


class SquareReader(nn.Module):
    """The log-odds of tumour are 10 (0.5 - mean grey level of one square / 255)."""

    def __init__(self, square=CENTRE, sharpness=10.0):
        super().__init__()
        self.square = square
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0], [-sharpness]]))
            self.head.bias.copy_(torch.tensor([0.0, sharpness / 2]))

    def forward(self, images):
        seen = images[:, :, self.square[0], self.square[1]].float() / 255
        return self.head(seen.mean(dim=(1, 2, 3))[:, None])


class HandMade(nn.Module):
    """A convolution of 16 x 16 windows that averages red and blue, pooled, then weighed."""

    WEIGHTS = ((1.0, -2.0), (3.0, 0.5))  # of normal and tumour, for the channels red and blue

    def __init__(self):
        super().__init__()
        self.window = nn.Conv2d(3, 2, 16, stride=16, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.window.weight.zero_()
            self.window.weight[0, 0] = self.window.weight[1, 2] = 1 / 256
            self.head.weight.copy_(torch.tensor(self.WEIGHTS))
            self.head.bias.zero_()

    def forward(self, images):
        return self.head(self.pool(self.window(images.float() / 255)).flatten(1))


@contextmanager
def counted_patches():
    """Yield a list whose sum is the number of patches that go through any HandMade meanwhile."""
    seen = []

    def count(module, inputs):
        if isinstance(module, HandMade):
            seen.append(len(inputs[0]))

    handle = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


def reader_of(patches):
    """Return a function that reads rows of `patches`."""
    return lambda rows: patches[np.asarray(rows)]
