"""Matrix products whose sums have one result, whatever the order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ml_core.numerics.exact.rounding import leading_power, pieces, round_below
from ml_core.numerics.exact.summation import exact_expand

_BLOCK = 1 << 18  # elements of a factor or a product at a time: they stay in the cache


def exact_matmul(input: Tensor, other: Tensor) -> Tensor:
    """Return what `torch.matmul` does, float32.

    Each row of `input` is rounded by itself, so that a patch's row does not depend on the others.
    """
    a = input[None] if input.ndim == 1 else input
    b = other[:, None] if other.ndim == 1 else other
    if b.ndim == 2:
        result = _matmul(a.reshape(-1, a.shape[-1]), b).view(*a.shape[:-1], b.shape[-1])
    else:
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
        result = _matmul(
            exact_expand(a, batch + a.shape[-2:]), exact_expand(b, batch + b.shape[-2:])
        )
    if input.ndim == 1:
        result = result.squeeze(-2)
    return result.squeeze(-1) if other.ndim == 1 else result


def exact_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `F.linear` does, float32: input (..., K), weight (N, K), bias (N,)."""
    result = exact_matmul(input, weight.t())
    return result if bias is None else result + exact_expand(bias, result.shape)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, float32 (..., M, N), of float32 `a` (..., M, K) and `b` (..., K, N).

    Longer sums than 2,048 are cut into equal pieces, which are rounded by themselves and added in
    float64, one after the other.
    """
    rows, columns = a.shape[-2], b.shape[-1]
    cuts = pieces(a.shape[-1])
    # of all columns: how many make a block depends on the number of rows
    powers = [leading_power(b[..., cut, :], (-2, -1)) for cut in cuts]
    width = max(64, _BLOCK // max(cuts[0].stop, rows))
    result = a.new_empty(*a.shape[:-1], columns)
    for left in range(0, columns, width):
        block = b[..., left : left + width]
        parts = (
            _rounded(a[..., cut]) @ round_below(block[..., cut, :], power).to(torch.float64)
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


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return _Matmul.apply(a, b)  # type: ignore[no-untyped-call,no-any-return]


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return product(a, b)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        grad_a = product(grad, b.mT) if needs_a else None
        # transposed, so that the gradient of a linear layer lies in memory as its weight does
        grad_b = product(grad.mT, a).mT if needs_b else None
        return grad_a, grad_b
