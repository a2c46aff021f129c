"""Convolution in two dimensions whose sums have one result, whatever the order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ml_core.errors import ConfigError
from ml_core.numerics.exact.columns import Pair, Windows
from ml_core.numerics.exact.phases import frame, phases
from ml_core.numerics.exact.rounding import leading_power, multiply, round_below
from ml_core.numerics.exact.summation import exact_expand

_SAMPLE = (1, 2, 3)


def exact_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Return what `F.conv2d` does, float32 (B, Cout, H', W').

    Each patch is rounded by itself, so that its result does not depend on the batch it is in.
    Raises ConfigError for dilated and grouped convolutions.
    """
    if _pair(dilation) != (1, 1) or groups != 1:
        raise ConfigError(
            f"exact arithmetic has no convolution with dilation {dilation} and groups {groups}; it "
            "has those of dilation 1 and groups 1, any kernel, stride and padding. Change that "
            "layer, or train with training.numerics: elastic."
        )
    padding = _padding(padding, weight, _pair(stride))
    result: Tensor = _Conv2d.apply(input, weight, _pair(stride), padding)  # type: ignore[no-untyped-call]
    return result if bias is None else result + exact_expand(bias[:, None, None], result.shape)


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        power = leading_power(x, _SAMPLE)  # (B, 1, 1, 1)
        images = _pixels_last(round_below(x, power), *(2 * (side,) for side in padding))
        kernel = (weight.shape[2], weight.shape[3])
        size = _output_size(images, kernel, stride)
        windows = Windows(size, kernel, stride)
        result = x.new_empty(len(x), len(weight), *size)
        _correlate(images, _pixels_last(_rounded(weight)), windows, result)
        ctx.save_for_backward(images, power, weight)
        ctx.windows, ctx.padding, ctx.shape = windows, padding, x.shape
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, power, weight = ctx.saved_tensors
        own = leading_power(grad, _SAMPLE)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            rounded, factors = round_below(grad, own), _rounded(weight)
            grad_x = _spread(rounded, factors, ctx.windows.stride, ctx.padding, ctx.shape)
        if ctx.needs_input_grad[1]:
            rounded = round_below(grad, _joint_power(own, power))
            grad_weight = _weight_gradient(images, rounded, ctx.windows, weight.shape)
        return grad_x, grad_weight, None, None


def _correlate(images: Tensor, weight: Tensor, windows: Windows, result: Tensor) -> None:
    """Write the products of all windows of `images` with `weight` into `result`.

    images float32 (B, H, W, C) and weight (Cout, *kernel, C) are rounded; result (B, Cout, *size).
    """
    factors = weight.to(torch.float64).reshape(len(weight), -1)
    for chunk, columns in windows.columns(images):
        # this way round the product costs half as much where the channels are few
        sums = multiply(factors, columns.t())  # (Cout, n * count)
        result[chunk] = sums.view(len(weight), -1, *windows.size).transpose(0, 1)
    result += 0.0  # a sum of zeros is +0 or -0, depending on the order


def _weight_gradient(images: Tensor, grad: Tensor, windows: Windows, shape: torch.Size) -> Tensor:
    """Return the sum over all windows, as long as each and its gradient have one unit in common."""
    total = grad.new_zeros(shape[0], shape[1:].numel(), dtype=torch.float64)
    for chunk, columns in windows.columns(images):
        factors = grad[chunk].transpose(0, 1).to(torch.float64).reshape(shape[0], -1)
        total += multiply(factors, columns)
    kernel = (shape[0], *windows.kernel, shape[1])
    return total.to(torch.float32).view(kernel).permute(0, 3, 1, 2)


def _spread(grad: Tensor, weight: Tensor, stride: Pair, padding: Pair, shape: torch.Size) -> Tensor:
    """Return the gradient of the input (B, C, H, W), of that `shape`.

    The pixels of a phase meet the same taps: theirs is a convolution of stride 1 with these.
    """
    kernel = weight.shape[2:]
    all_met = kernel[0] >= stride[0] and kernel[1] >= stride[1]
    result = grad.new_empty(shape) if all_met else grad.new_zeros(shape)
    axes = list(zip(shape[2:], kernel, stride, padding, strict=True))
    around = [
        (front, max(0, seen - num))
        for (front, seen), num in zip((frame(*axis) for axis in axes), grad.shape[2:], strict=True)
    ]
    images = _pixels_last(grad, *around)
    for rows, columns in itertools.product(*(phases(*axis) for axis in axes)):
        taps = weight[:, :, rows.taps, columns.taps].flip(2, 3).transpose(0, 1)
        windows = Windows(
            size=(rows.count, columns.count),
            kernel=(taps.shape[2], taps.shape[3]),
            origin=(rows.origin, columns.origin),
        )
        _correlate(images, _pixels_last(taps), windows, result[:, :, rows.pixels, columns.pixels])
    return result


def _rounded(weight: Tensor) -> Tensor:
    return round_below(weight, leading_power(weight, (0, 1, 2, 3)))


def _joint_power(grad: Tensor, images: Tensor) -> Tensor:
    """Return powers for the gradients of each patch, (B, 1, 1, 1) as `grad` and `images` are.

    The units of a patch and of its gradient are multiplied in the weight gradient: the product is
    made the same for all patches, by taking those gradients less finely whose patch is finer.
    """
    patches = images.to(torch.float64)
    joint = (grad.to(torch.float64) * patches).amax(0, keepdim=True)
    return (joint / patches).to(torch.float32)


def _pixels_last(x: Tensor, rows: Pair = (0, 0), columns: Pair = (0, 0)) -> Tensor:
    """Return `x` (n, C, H, W) as (n, H, W, C), with zeros before and after rows and columns."""
    batch, channels, height, width = x.shape
    (top, below), (left, right) = rows, columns
    framed = x.new_zeros(batch, top + height + below, left + width + right, channels)
    framed[:, top : top + height, left : left + width] = x.permute(0, 2, 3, 1)
    return framed


def _output_size(framed: Tensor, kernel: Pair, stride: Pair) -> Pair:
    """Return how many windows fit into `framed` (n, H, W, C)."""
    height, width = framed.shape[1:3]
    return (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])  # torch takes one number in brackets for both


def _padding(padding: int | Pair | str, weight: Tensor, stride: Pair) -> Pair:
    """Return the zeros on each side; raises ConfigError where the two sides would differ."""
    if not isinstance(padding, str):
        return _pair(padding)
    height, width = weight.shape[2:]
    if padding == "valid":
        return 0, 0
    if padding == "same" and stride == (1, 1) and height % 2 and width % 2:
        return height // 2, width // 2
    raise ConfigError(
        f"exact arithmetic has no convolution with padding {padding!r}, stride {stride} and a "
        f"kernel of {height} x {width}: 'same' takes stride 1 and odd kernels. Give the padding "
        "as a number."
    )
