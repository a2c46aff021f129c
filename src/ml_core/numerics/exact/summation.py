"""Sums in a fixed order: halves are added, element by element, until one number is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Dims = int | Sequence[int] | None


def sum_last(x: Tensor) -> Tensor:
    """Return the sum over the last dimension of `x`, which is gone.

    The second half is added to the first, again and again; where the number is odd, the last joins
    the first. The error grows with the logarithm of the length (Higham, Accuracy and stability of
    numerical algorithms, 2002, section 4.2), and torch's own order does not come into it.
    """
    if x.shape[-1] == 0:
        return x.new_zeros(x.shape[:-1])
    while (num := x.shape[-1]) > 1:
        half = num // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        if num % 2:
            folded[..., :1] += x[..., -1:]
        x = folded
    return x[..., 0]


def sum_over(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Return the sum of `x` over `dims` (0 or above), which stay with size 1."""
    kept = [dim for dim in range(x.ndim) if dim not in dims]
    rows = x.permute(*kept, *dims).reshape([x.shape[dim] for dim in kept] + [-1])
    return sum_last(rows).view([1 if dim in dims else x.shape[dim] for dim in range(x.ndim)])


def divide(x: Tensor, number: float) -> Tensor:
    """Return `x` / `number`, rounded once.

    With a plain number a GPU multiplies by the reciprocal, which rounds twice.
    """
    return x / torch.full((), number, dtype=x.dtype, device=x.device)


def exact_sum(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Return what `torch.sum` does, added in a fixed order."""
    x = input if dtype is None else input.to(dtype)
    if not x.is_floating_point():  # integers have one sum
        return torch.sum(x, dim=dim, keepdim=keepdim)  # type: ignore[arg-type]
    dims = _dims(dim, x.ndim)
    total: Tensor = _Sum.apply(x, dims)  # type: ignore[no-untyped-call]
    return total if keepdim else _without(total, dims)


def exact_mean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Return what `torch.mean` does: `exact_sum` divided by how many there are."""
    num = math.prod(input.shape[d] for d in _dims(dim, input.ndim))
    return _Divide.apply(exact_sum(input, dim, keepdim, dtype=dtype), num)  # type: ignore[no-untyped-call,no-any-return]


def exact_expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return `x` broadcast to `shape`; its gradient is added up in a fixed order."""
    if not x.requires_grad or x.shape == torch.Size(shape):
        return x.expand(tuple(shape))
    return _Expand.apply(x, tuple(shape))  # type: ignore[no-untyped-call,no-any-return]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        return sum_over(x, dims)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.expand(ctx.shape), None


class _Divide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, number: float) -> Tensor:
        ctx.number = number
        return divide(x, number)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return divide(grad, ctx.number), None


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        return x.expand(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        added = grad.ndim - len(ctx.shape)
        shape = (1,) * added + tuple(ctx.shape)
        dims = [dim for dim, size in enumerate(shape) if size != grad.shape[dim]]
        dims += [dim for dim in range(added) if dim not in dims]
        return sum_over(grad, sorted(dims)).view(ctx.shape), None


def _dims(dim: Dims, ndim: int) -> tuple[int, ...]:
    """Return `dim` as torch takes it, as numbers from 0; None and () are all dimensions."""
    if dim is None:
        return tuple(range(ndim))
    given = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % ndim for d in given) or tuple(range(ndim))


def _without(x: Tensor, dims: Sequence[int]) -> Tensor:
    return x.view([size for dim, size in enumerate(x.shape) if dim not in dims])
