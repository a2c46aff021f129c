"""Group and layer norm, whose means and variances are added in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ml_core.numerics.exact.summation import divide, exact_expand, sum_last


def exact_group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return what `F.group_norm` does, float32 (B, C, ...); a patch is normalised by itself."""
    channels = input.shape[1]
    weight = input.new_ones(channels) if weight is None else weight
    bias = input.new_zeros(channels) if bias is None else bias
    result: Tensor = _GroupNorm.apply(  # type: ignore[no-untyped-call]
        input.flatten(2), weight, bias, num_groups, eps
    )
    return result.view(input.shape)


def exact_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return what `F.layer_norm` does, float32 of the shape of `input`."""
    rows = input.reshape(-1, 1, torch.Size(normalized_shape).numel())
    result = exact_group_norm(rows, 1, eps=eps).view(input.shape)
    if weight is not None:
        result = result * exact_expand(weight, result.shape)
    return result if bias is None else result + exact_expand(bias, result.shape)


class _GroupNorm(torch.autograd.Function):
    """x (B, C, P) less the mean of its group, by the root of its variance plus eps, then affine."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        rows = x.reshape(len(x), num_groups, -1)
        centred = rows - _mean(rows)
        deviation = (_mean(centred * centred).to(torch.float64) + eps).sqrt()
        scale = (torch.ones_like(deviation) / deviation).to(torch.float32)  # (B, groups, 1)
        normal = centred.mul_(scale).view(x.shape)
        ctx.save_for_backward(normal, scale, weight)
        return (normal * weight[:, None]).add_(bias[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        normal, scale, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_bias = sum_last(grad)  # (B, C), and so is grad_weight
        grad_weight = sum_last(grad * normal)
        # with respect to x the mean of the gradient and its slope along x are taken off
        num_groups, num = scale.shape[1], grad[0].numel() // scale.shape[1]
        by_group = (len(grad), num_groups, -1)
        mean = divide(sum_last((grad_bias * weight).view(by_group)), num)[..., None]
        slope = divide(sum_last((grad_weight * weight).view(by_group)), num)[..., None]
        factor = weight.view(num_groups, -1) * scale  # (B, groups, C / groups)
        grad_x = (grad * factor.view(*grad_bias.shape, 1)).view(by_group)
        grad_x.sub_(mean * scale).sub_(normal.view(by_group) * (slope * scale))
        return (
            grad_x.view(grad.shape),
            sum_last(grad_weight.t()),
            sum_last(grad_bias.t()),
            None,
            None,
        )


def _mean(rows: Tensor) -> Tensor:
    return divide(sum_last(rows), rows.shape[-1])[..., None]
