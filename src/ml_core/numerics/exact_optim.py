"""AdamW, Adam and SGD as separate sums, products, divisions and roots: the same bits everywhere.

torch's own use fused functions (lerp, addcmul, addcdiv), which round once or twice depending on the
instruction set. State, names and options are torch's, so checkpoints are alike. Tensors are worked
off in pieces that stay in the cache; no element knows its neighbours, so a piece may end anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ml_core.errors import ConfigError
from ml_core.numerics.exact_norm import exact_norms, joint_norm
from ml_core.numerics.portable_math import power
from ml_core.numerics.uncompiled import SGD, Adam, AdamW

_PIECE = 1 << 15  # elements: 128 kB of each tensor
_VARIANTS = (
    "amsgrad", "maximize", "capturable", "differentiable", "fused", "dampening",
)  # fmt: skip


class ExactAdam(Adam):
    """Adam with an L2 penalty: Kingma and Ba 2015, arXiv 1412.6980, algorithm 1."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step on the gradients; parameters without one are left alone."""
        for group, parameter, gradient in _with_gradients(self):
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            numbers = _adam_numbers(group, num_steps=int(state["step"]))
            for piece in _pieces(parameter, gradient, state["exp_avg"], state["exp_avg_sq"]):
                _adam_step(numbers, *piece)


class ExactAdamW(ExactAdam, AdamW):
    """Adam with decoupled weight decay: Loshchilov and Hutter 2019, arXiv 1711.05101."""


class ExactSGD(SGD):
    """Stochastic gradient descent with an L2 penalty, momentum and Nesterov's look-ahead."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step on the gradients; parameters without one are left alone."""
        for group, parameter, gradient in _with_gradients(self):
            tensors = [parameter, gradient]
            if group["momentum"]:
                state = self.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                tensors.append(state["momentum_buffer"])
            for piece in _pieces(*tensors):
                _sgd_step(group, *piece)


def exact_clip_(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients down to the joint L2 norm `max_norm`; return the norm that they had.

    A norm that is not finite is returned, and nothing is changed. The denominator is that of
    `torch.nn.utils.clip_grad_norm_`.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = joint_norm(exact_norms(gradients))
    scale = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and scale < 1:
        for gradient in gradients:
            gradient.mul_(scale)
    return norm


class _AdamNumbers(NamedTuple):
    """What a step multiplies by. Never a divisor: a GPU would multiply by its reciprocal."""

    shrink: float  # of the weights, where the decay is decoupled
    penalty: float  # times the weights joins the gradient, where it is not
    beta1: float
    beta2: float
    size: float  # learning rate over the correction of the mean, which starts at 0
    inverse_root: float  # corrects the root of the mean square
    eps: float


def _adam_numbers(group: Mapping[str, Any], num_steps: int) -> _AdamNumbers:
    beta1, beta2 = group["betas"]
    lr, weight_decay = float(group["lr"]), group["weight_decay"]
    is_decoupled = group["decoupled_weight_decay"]
    return _AdamNumbers(
        shrink=1 - lr * weight_decay if is_decoupled else 1.0,
        penalty=0.0 if is_decoupled else weight_decay,
        beta1=beta1,
        beta2=beta2,
        size=lr / (1 - power(beta1, num_steps)),
        inverse_root=1 / math.sqrt(1 - power(beta2, num_steps)),
        eps=group["eps"],
    )


def _adam_step(
    by: _AdamNumbers, weights: Tensor, gradient: Tensor, mean: Tensor, square: Tensor
) -> None:
    if by.penalty:
        gradient = gradient + weights * by.penalty
    if by.shrink != 1:
        weights.mul_(by.shrink)
    mean.mul_(by.beta1).add_(gradient * (1 - by.beta1))
    square.mul_(by.beta2).add_((gradient * gradient).mul_(1 - by.beta2))
    update = mean / square.sqrt().mul_(by.inverse_root).add_(by.eps)
    weights.sub_(update.mul_(by.size))


def _sgd_step(
    group: Mapping[str, Any], weights: Tensor, gradient: Tensor, buffer: Tensor | None = None
) -> None:
    if group["weight_decay"]:
        gradient = gradient + weights * group["weight_decay"]
    if buffer is not None:
        buffer.mul_(group["momentum"]).add_(gradient)
        gradient = gradient + buffer * group["momentum"] if group["nesterov"] else buffer
    weights.sub_(gradient * group["lr"])


def _with_gradients(
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[Mapping[str, Any], Tensor, Tensor]]:
    """Yield (group, parameter, its gradient), in the order of the groups.

    Raises ConfigError for an option of torch's that is not offered here.
    """
    for group in optimizer.param_groups:
        for name in _VARIANTS:
            if group.get(name):
                raise ConfigError(
                    f"{type(optimizer).__name__} has no {name} (it is {group[name]}). "
                    "Leave it out, or set training.numerics to fast or elastic."
                )
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter, parameter.grad


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of the same elements of all `tensors`, which have one shape, strides of any kind.

    They are cut along the first dimension.
    """
    first = tensors[0]
    if first.ndim == 0:
        yield tensors
        return
    num_rows = max(1, _PIECE * len(first) // max(1, first.numel()))
    yield from zip(*(torch.split(tensor, num_rows) for tensor in tensors), strict=True)
