"""Answers of convolutions whose weights were never trained."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ml_core.evaluation.baselines.colours import CENTRE, Floats, Patches
from ml_core.reproducibility import Stream, philox_words

if TYPE_CHECKING:
    from torch import Tensor

_SEED = 20_160_116  # of the weights, the same for every data set and run
_LAYERS = ((3, 16, 5), (16, 32, 3), (32, 64, 3))  # channels in and out, kernel; each of stride 2
NUM_FEATURES = 2 * sum(channels for _, channels, _ in _LAYERS)


def random_features(patches: Patches) -> Floats:
    """Return the mean activations of three random layers of patches (n, H, W, 3): (n, 224).

    Of each convolution (stride 2, then ReLU) the mean of every channel over the centre 32 x 32,
    then over the whole patch. Random filters with pooling and a linear read-out do surprisingly
    well (Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?"):
    a trained network has to show what training adds to its shape. 16 MFLOP and 0.3 ms per patch.
    """
    import torch
    from torch.nn.functional import conv2d

    means = []
    with torch.inference_mode():
        # permuted, not copied: the memory stays (n, H, W, 3), in which the first layer is 3x faster
        answers = torch.from_numpy(patches).permute(0, 3, 1, 2).float().sub_(127.5).div_(64)
        for depth, weight in enumerate(_weights(), start=1):
            answers = conv2d(answers, weight, stride=2, padding=weight.shape[-1] // 2).relu_()
            rows, columns = (_centre(extent, 2**depth) for extent in patches.shape[1:3])
            means += [answers[:, :, rows, columns].mean((2, 3)), answers.mean((2, 3))]
    features: Floats = torch.cat(means, dim=1).numpy()
    return features


def _centre(extent: int, stride: int) -> slice:
    """Return which answers of a layer are about the centre of an axis of `extent` pixels."""
    first = max(0, extent // 2 - CENTRE // 2) // stride
    return slice(first, first + max(1, min(CENTRE, extent) // stride))


@cache
def _weights() -> list[Tensor]:
    """Return the kernels, uniform with the variance of He et al. 2015 ("Delving deep"), eq. 10.

    Their bits follow from the words of Philox and one correctly rounded square root, so that no
    release of torch or numpy can change them.
    """
    import torch

    kernels = []
    for depth, (channels_in, channels_out, side) in enumerate(_LAYERS):
        fan_in = channels_in * side * side
        num = channels_out * fan_in
        words = philox_words(_SEED, depth, Stream.INIT, -(-num // 4)).ravel()[:num]
        uniform = (words >> np.uint64(40)).astype(np.float64) / 2**23 - 1  # in [-1, 1)
        kernel = uniform.astype(np.float32) * np.float32(np.sqrt(6 / fan_in))
        tensor = torch.from_numpy(kernel.reshape(channels_out, channels_in, side, side))
        kernels.append(tensor.to(memory_format=torch.channels_last))
    return kernels
