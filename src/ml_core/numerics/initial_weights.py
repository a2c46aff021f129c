"""Initial weights as a function of (seed, name of the parameter), from raw Philox words.

torch draws them one after the other from one generator, through functions whose last bits depend
on the instruction set; a layer more, and every later layer starts elsewhere.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ml_core.reproducibility import Stream

_DRAWN = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
# They start at 1 and 0, whatever the seed.
_CONSTANT = (
    nn.GroupNorm, nn.LayerNorm, nn.RMSNorm,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip


def draw_weights(model: nn.Module, seed: int) -> list[str]:
    """Draw the weights and biases of every linear layer and convolution of `model` anew, in place.

    Each is uniform in ±1 / sqrt(number of inputs of a unit), torch's own default (kaiming_uniform_
    with a = sqrt(5), after He et al. 2015). Norms stay at 1 and 0. Returns the names of the
    parameters of other layers, which stay as they were built.
    """
    left, seen = [], set[int]()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if id(parameter) in seen:  # shared, and drawn by its first name
                continue
            seen.add(id(parameter))
            if isinstance(module, _DRAWN):
                bound = 1 / math.sqrt(module.weight[0].numel())
                _fill(parameter, bound * _symmetric(seed, name, parameter.numel()))
            elif not isinstance(module, _CONSTANT):
                left.append(name)
    return left


def _symmetric(seed: int, name: str, num: int) -> npt.NDArray[np.float64]:
    """Return `num` numbers within ±1, odd multiples of 2^-24, so that none is 0 or an end."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    words = np.random.Philox(key=seed, counter=[0, 0, key, int(Stream.INIT)]).random_raw(num)
    numbers = (words >> np.uint64(40)).astype(np.float64)  # 24 bits each
    return (2 * numbers + 1) / 2**24 - 1


def _fill(parameter: Tensor, values: npt.NDArray[np.float64]) -> None:
    """Copy `values`, one rounding each, in the order of the parameter's shape."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
