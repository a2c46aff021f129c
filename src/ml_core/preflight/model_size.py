"""How many numbers a model has and makes of a patch, by arithmetic, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model, and the numbers that one patch becomes on its way through.

    `kept`: what a training keeps of all layers for the way back; `largest`: what the largest layer
    gives, `num_inputs`: the numbers of the patch itself.
    """

    num_inputs: int
    num_parameters: int
    kept: int
    largest: int


def mlp_size(
    input_shape: tuple[int, int, int], hidden_units: Sequence[int], num_classes: int
) -> ModelSize:
    """Return the size of `ml_core.models.MLP`; a layer keeps sums, ReLU and dropout."""
    num_inputs = math.prod(input_shape)
    widths = [num_inputs, *hidden_units, num_classes]
    num_parameters = sum(before * after + after for before, after in pairwise(widths))
    return ModelSize(
        num_inputs,
        num_parameters,
        2 * num_inputs + 3 * sum(hidden_units) + num_classes,
        max(*hidden_units, num_classes),
    )


def cnn_size(
    input_shape: tuple[int, int, int],
    widths: Sequence[int],
    blocks_per_stage: int,
    num_classes: int,
) -> ModelSize:
    """Return the size of `ml_core.models.CNN`.

    Kept are the grey levels as numbers and normalised, and of each layer what it gives: convolution
    (3 x 3 weights per pair of channels), normalisation (2 per channel), ReLU, pooling, sum.
    """
    channels, height, width = input_shape
    pixels = _halved(height) * _halved(width)
    stem = 3 * widths[0] * pixels
    blocks = list(_blocks(input_shape, widths, blocks_per_stage))
    num_parameters = (
        9 * channels * widths[0]
        + 2 * widths[0]
        + sum(_block_parameters(*block) for block in blocks)
        + (3 * widths[-1] + 1) * num_classes
    )
    kept = 2 * math.prod(input_shape) + stem + sum(_block_kept(*block) for block in blocks)
    largest = max(widths[0] * pixels, *(outputs * size for _, outputs, size, _ in blocks))
    return ModelSize(math.prod(input_shape), num_parameters, kept, largest)


def _blocks(
    input_shape: tuple[int, int, int], widths: Sequence[int], blocks_per_stage: int
) -> Iterator[tuple[int, int, int, bool]]:
    """Yield each residual block: its channels in and out, its pixels, whether it is strided.

    Only a stage's first is, and only there a convolution changes the channels of the shortcut.
    """
    _, height, width = input_shape
    height, width = _halved(height), _halved(width)
    inputs = widths[0]
    for outputs in widths:
        height, width = _halved(height), _halved(width)
        for block in range(blocks_per_stage):
            yield inputs, outputs, height * width, block == 0
            inputs = outputs


def _block_parameters(inputs: int, outputs: int, _pixels: int, is_strided: bool) -> int:
    branch = 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs
    return branch + (inputs * outputs + 2 * outputs if is_strided else 0)


def _block_kept(inputs: int, outputs: int, pixels: int, is_strided: bool) -> int:
    shortcut = (inputs + 2 * outputs) * pixels if is_strided else 0
    return 7 * outputs * pixels + shortcut


def _halved(size: int) -> int:
    return (size + 1) // 2
