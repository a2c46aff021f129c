"""The loss of a classifier and its gradient, to the same bits everywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ml_core.numerics.elementary import exp, log


def exact_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the loss of each patch, (B,), of `logits` (B, num_classes) and `labels` int64 (B,).

    What `F.cross_entropy(..., reduction="none")` gives, computed in float64 and rounded once. With
    `label_smoothing` s the target is 1 - s for the label plus s / num_classes for every class. A
    label out of range is a RuntimeError (in torch an IndexError).
    """
    losses: Tensor = _CrossEntropy.apply(logits, labels, label_smoothing)  # type: ignore[no-untyped-call]
    return losses


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        wide = logits.detach().to(torch.float64)
        shifted = wide - wide.amax(dim=1, keepdim=True)
        powers = exp(shifted)
        total = _sum_of_columns(powers)  # (B,)
        target = _target(labels, wide.shape[1], label_smoothing)  # (B, num_classes)
        ctx.save_for_backward(powers, total, target)
        ctx.dtype = logits.dtype
        # the target sums to 1: what it weighs is log(total) less the weighted logits
        losses = log(total) - _sum_of_columns(target * shifted)
        return losses.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor, None, None]:
        powers, total, target = ctx.saved_tensors
        excess = powers / total[:, None] - target
        return (excess * grad_losses.to(torch.float64)[:, None]).to(ctx.dtype), None, None


def _target(labels: Tensor, num_classes: int, label_smoothing: float) -> Tensor:
    """Return the probabilities that the loss asks for, float64 (B, num_classes)."""
    share = label_smoothing / num_classes
    target = torch.full(
        (len(labels), num_classes), share, dtype=torch.float64, device=labels.device
    )
    return target.scatter_(1, labels[:, None], 1 - label_smoothing + share)


def _sum_of_columns(x: Tensor) -> Tensor:
    """Return the sums of the rows of `x`, from the first column to the last."""
    total = x[:, 0].clone()
    for column in range(1, x.shape[1]):
        total += x[:, column]
    return total
