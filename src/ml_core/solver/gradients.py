"""How large the gradients are: of the whole model, and of each layer."""

from __future__ import annotations

import math

import torch
from torch import nn

from ml_core.numerics.exact_norm import exact_norms, joint_norm


def gradient_norms(
    model: nn.Module, *, exact: bool = False
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the L2 norm of all gradients together (0-d), and of each layer by its name.

    A layer is a module that owns parameters; its norm is that of its weight and bias together. The
    total is what `torch.nn.utils.get_total_norm` gives, to the bit; nothing is changed. The norms
    travel from the device once, together. `exact`: by sums that no order and no thread changes.
    """
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if not named:
        return torch.zeros(()), {}
    grads = [grad for _, grad in named]
    if exact:
        norms = torch.tensor(exact_norms(grads), dtype=torch.float64)  # (P,)
        total = torch.tensor(joint_norm(norms.tolist()), dtype=torch.float64)
    else:
        norms = torch.stack([torch.linalg.vector_norm(grad) for grad in grads])
        total = torch.linalg.vector_norm(norms)
    squares: dict[str, float] = {}
    for (name, _), norm in zip(named, norms.tolist(), strict=True):
        layer = name.rpartition(".")[0]
        squares[layer] = squares.get(layer, 0.0) + norm * norm
    return total, {name: math.sqrt(sq) for name, sq in squares.items()}
