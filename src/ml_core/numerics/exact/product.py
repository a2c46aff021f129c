"""Matrix products whose sums have one result, whatever the order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ml_core.numerics.exact.rounding import leading_power, pieces, round_below
from ml_core.numerics.exact.summation import exact_expand

_BLOCK = 1 << 18  # elements of a factor or a product at a time: they stay in the cache

Dims = tuple[int, ...]
_EACH_COLUMN: Dims = (-2,)
_ALL_COLUMNS: Dims = (-2, -1)  # cheaper, and as good for weights, which no patch is part of


def exact_matmul(input: Tensor, other: Tensor) -> Tensor:
    """Return what `torch.matmul` does, float32.

    Each row of `input` and each column of `other` is rounded by itself, so that what a patch gives
    does not depend on the others, whichever of the two it is in.
    """
    return _multiplied(input, other, _EACH_COLUMN)


def exact_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `F.linear` does, float32: input (..., K), weight (N, K), bias (N,)."""
    result = _multiplied(input, weight.t(), _ALL_COLUMNS)
    return result if bias is None else result + exact_expand(bias, result.shape)


def _multiplied(input: Tensor, other: Tensor, dims: Dims) -> Tensor:
    """Return input @ other with the shapes of `torch.matmul`; `dims` as `product` has it."""
    a = input[None] if input.ndim == 1 else input
    b = other[:, None] if other.ndim == 1 else other
    if b.ndim == 2:
        result = _matmul(a.reshape(-1, a.shape[-1]), b, dims).view(*a.shape[:-1], b.shape[-1])
    else:
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
        result = _matmul(
            exact_expand(a, batch + a.shape[-2:]), exact_expand(b, batch + b.shape[-2:]), dims
        )
    if input.ndim == 1:
        result = result.squeeze(-2)
    return result.squeeze(-1) if other.ndim == 1 else result


def product(a: Tensor, b: Tensor, dims: Dims = _ALL_COLUMNS) -> Tensor:
    """Return a @ b, float32 (..., M, N), of float32 `a` (..., M, K) and `b` (..., K, N).

    The rows of `a` are rounded one by one; what of `b` is rounded together lies along `dims`.
    Longer sums than 2,048 are cut into equal pieces, which are rounded by themselves and added in
    float64, one after the other.
    """
    rows, columns = a.shape[-2], b.shape[-1]
    cuts = pieces(a.shape[-1])
    # of all columns: how many make a block depends on the number of rows
    powers = [leading_power(b[..., cut, :], dims).expand(*b.shape[:-2], 1, columns) for cut in cuts]
    width = max(64, _BLOCK // max(cuts[0].stop, rows))
    result = a.new_empty(*a.shape[:-1], columns)
    for left in range(0, columns, width):
        block = b[..., left : left + width]
        parts = (
            _rounded(a[..., cut])
            @ round_below(block[..., cut, :], power[..., left : left + width]).to(torch.float64)
            for cut, power in zip(cuts, powers, strict=True)
        )
        total = next(parts)
        for part in parts:
            total += part
        result[..., left : left + width] = total
    result += 0.0  # a sum of zeros is +0 or -0, depending on the order
    return result


def _rounded(rows: Tensor) -> Tensor:
    return round_below(rows, leading_power(rows, -1)).to(torch.float64)


def _matmul(a: Tensor, b: Tensor, dims: Dims) -> Tensor:
    # torch gives `apply` no types
    return _Matmul.apply(a, b, dims)  # type: ignore[no-untyped-call,no-any-return]


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, dims: Dims) -> Tensor:
        ctx.save_for_backward(a, b)
        return product(a, b, dims)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        needs_a, needs_b, _ = ctx.needs_input_grad
        grad_a = product(grad, b.mT) if needs_a else None
        # transposed, so that the gradient of a linear layer lies in memory as its weight does
        grad_b = product(grad.mT, a).mT if needs_b else None
        return grad_a, grad_b, None
