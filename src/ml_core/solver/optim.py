"""Optimizers and learning-rate schedules by name.

A schedule is a pure function of the step, so a resumed run needs nothing but the step's number;
only `plateau`, which answers to the validation loss, has a memory. It is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ml_core.errors import ConfigError, did_you_mean
from ml_core.numerics.exact_optim import ExactAdam, ExactAdamW, ExactSGD
from ml_core.numerics.portable_math import cos, power
from ml_core.numerics.uncompiled import SGD, Adam, AdamW

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": AdamW,
    "adam": Adam,
    "sgd": SGD,
}
# The same, of operations whose bits no machine changes.
EXACT_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": ExactAdamW,
    "adam": ExactAdam,
    "sgd": ExactSGD,
}
SCHEDULES = ("constant", "cosine", "one_cycle", "step", "plateau")


def build_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    weight_decay: float,
    *,
    exact: bool = False,
    fused: bool = False,
    **options: Any,
) -> torch.optim.Optimizer:
    """Return the optimizer `name` over the trainable parameters of `model`.

    With `exact` its steps give the same bits on every machine; the state is the same otherwise.
    `fused` goes over the memory once a step instead of ten times: other last bits, and a checkpoint
    keeps to what it was begun with.

    Weight decay goes to kernels and matrices; biases and the scales of normalisation are spared,
    since pulling them to 0 regularises nothing (He et al. 2018, arXiv 1812.01187). Raises
    ConfigError for an unknown name.
    """
    _check_name("optimizer", name, OPTIMIZERS)
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers = EXACT_OPTIMIZERS if exact else OPTIMIZERS
    fused = fused and not exact
    if fused:
        options["fused"] = True
    built = optimizers[name]([group for group in groups if group["params"]], lr=lr, **options)
    if fused:
        built.register_step_pre_hook(_lay_out_gradients)
    return built


def _lay_out_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Give each gradient the memory format of its parameter, which fused kernels take for granted.

    They go over both as they lie in memory: with another format weights get each other's gradients,
    without a word. Autograd keeps to the format; whoever writes p.grad may not.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(gradient)


def build_scheduler(
    optimizer: torch.optim.Optimizer,
    name: str,
    *,
    epochs: int,
    steps_per_epoch: int,
    **options: Any,
) -> LRScheduler | ReduceLROnPlateau:
    """Return the schedule `name`; all but plateau are stepped after every optimizer step.

    Raises ConfigError for an unknown name.
    """
    _check_name("scheduler", name, SCHEDULES)
    if name == "plateau":
        return ReduceLROnPlateau(
            optimizer, factor=options["gamma"], patience=options["patience"], mode="min"
        )
    total = epochs * steps_per_epoch
    return LambdaLR(
        optimizer,
        lambda step: lr_factor(name, step, total=total, steps_per_epoch=steps_per_epoch, **options),
    )


def lr_factor(
    name: str,
    step: int,
    *,
    total: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    warmup_share: float = 0.3,
    start_factor: float = 0.04,
    min_factor: float = 0.0,
    step_epochs: int = 5,
    gamma: float = 0.1,
) -> float:
    """Return learning rate over highest learning rate at `step` (from 0) of `total`.

    one_cycle rises and falls along a cosine; the others rise linearly over `warmup_epochs` to a
    first step above 0, then follow their own course.
    """
    if name == "one_cycle":
        peak = warmup_share * total
        if step < peak:
            return _cosine(start_factor, 1.0, step / peak)
        return _cosine(1.0, min_factor, (step - peak) / max(1.0, total - 1 - peak))
    warmup = round(warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if name == "constant":
        return 1.0
    if name == "cosine":
        return _cosine(1.0, min_factor, (step - warmup) / max(1, total - 1 - warmup))
    assert name == "step", name
    return power(gamma, step // (step_epochs * steps_per_epoch))


def _check_name(kind: str, name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ConfigError(
            f"unknown {kind} {name!r}; there are: {', '.join(allowed)}."
            + did_you_mean(name, allowed)
        )


def _cosine(start: float, end: float, share: float) -> float:
    """Return the value at `share` (0..1, held beyond 1) of a half cosine from start to end."""
    return end + (start - end) * (1 + cos(math.pi * min(1.0, share))) / 2
