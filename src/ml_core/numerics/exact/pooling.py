"""Average pooling whose sums are added in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ml_core.errors import ConfigError
from ml_core.numerics.exact.summation import exact_mean

Pair = tuple[int, int]


def exact_avg_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return what `F.avg_pool2d` does, float32 (B, C, H', W').

    Raises ConfigError for padding and for a divisor of one's own.
    """
    if _pair(padding) != (0, 0) or divisor_override is not None:
        raise ConfigError(
            f"exact arithmetic has no average pooling with padding {padding} and divisor_override "
            f"{divisor_override}; it has that without either, any kernel and stride, with and "
            "without ceil_mode. Change that layer, or train with training.numerics: elastic."
        )
    kernel = _pair(kernel_size)
    steps = _pair(kernel_size if stride is None or stride == [] else stride)
    result: Tensor = _AvgPool2d.apply(input, kernel, steps, ceil_mode)  # type: ignore[no-untyped-call]
    return result


def exact_adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """Return the mean of every channel, float32 (B, C, 1, 1).

    Raises ConfigError for another output than 1 x 1.
    """
    if output_size not in (1, (1,), (1, 1), [1], [1, 1]):
        raise ConfigError(
            f"exact arithmetic has no adaptive_avg_pool2d to {output_size}; it has that to 1. "
            "Use avg_pool2d with a kernel and a stride, or train with training.numerics: elastic."
        )
    return exact_mean(input, (-2, -1), keepdim=True)


class _AvgPool2d(torch.autograd.Function):
    """Rows of a window are added first, which lie together in memory, then columns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Pair, stride: Pair, ceil_mode: bool) -> Tensor:
        sizes = (x.shape[2], x.shape[3])
        ctx.axes = [_Axis(*axis, ceil_mode) for axis in zip(sizes, kernel, stride, strict=True)]
        rows, columns = ctx.axes
        beyond = [max(0, axis.reach - axis.length) for axis in ctx.axes]
        framed = F.pad(x, (0, beyond[1], 0, beyond[0]))
        added = _in_order(framed[:, :, tap] for tap in rows.taps())
        return _in_order(added[..., tap] for tap in columns.taps()) / _counts(ctx.axes, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        rows, columns = ctx.axes
        share = grad / _counts(ctx.axes, grad)
        spread = grad.new_zeros(*share.shape[:3], max(columns.reach, columns.length))
        for tap in columns.taps():
            spread[..., tap] += share
        result = grad.new_zeros(*share.shape[:2], max(rows.reach, rows.length), spread.shape[3])
        for tap in rows.taps():
            result[:, :, tap] += spread
        return result[:, :, : rows.length, : columns.length], None, None, None


def _in_order(parts: Iterator[Tensor]) -> Tensor:
    total = next(parts)
    for part in parts:
        total = total + part
    return total


class _Axis:
    """The windows of `kernel` pixels, `stride` apart, along an axis of `length` pixels."""

    def __init__(self, length: int, kernel: int, stride: int, ceil_mode: bool) -> None:
        self.length, self.kernel, self.stride = length, kernel, stride
        self.num_windows = (length - kernel + (stride - 1 if ceil_mode else 0)) // stride + 1
        if (self.num_windows - 1) * stride >= length:  # the last window would see nothing
            self.num_windows -= 1

    @property
    def reach(self) -> int:
        """Pixels from the first to the end of the last window, which may lie beyond the axis."""
        return (self.num_windows - 1) * self.stride + self.kernel

    def taps(self) -> Iterator[slice]:
        """Yield the pixels that are first in their windows, those that are second, and so on."""
        extent = (self.num_windows - 1) * self.stride + 1
        for offset in range(self.kernel):
            yield slice(offset, offset + extent, self.stride)

    def counts(self) -> list[int]:
        """Return how many pixels of the axis each window sees."""
        starts = range(0, self.num_windows * self.stride, self.stride)
        return [min(self.kernel, self.length - start) for start in starts]


def _counts(axes: Sequence[_Axis], like: Tensor) -> Tensor:
    """Return how many pixels each window sees, (H', W'), of the type and device of `like`."""
    rows, columns = (
        torch.tensor(axis.counts(), dtype=like.dtype, device=like.device) for axis in axes
    )
    return rows[:, None] * columns


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])
