"""Optimizers that leave torch's compiler alone take torch's own steps; fused ones are careful."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from ml_core.solver.optim import OPTIMIZERS, build_optimizer

TORCHS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def small_model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(8, 16, 3), nn.GroupNorm(1, 16), nn.Flatten(), nn.Linear(784, 2)
    )
    return layers.to(memory_format=torch.channels_last)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[torch.Tensor]:
    """Take steps on gradients that are a function of the step; return the weights."""
    for step in steps:
        optimizer.zero_grad()
        images = torch.randn(4, 8, 9, 9, generator=torch.Generator().manual_seed(step))
        model(images).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def groups_of(model: nn.Module) -> list[dict]:
    return [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_steps_are_torchs_to_the_bit(name):
    options = {"momentum": 0.9} if name == "sgd" else {}
    ours, theirs = small_model(), small_model()
    one = train(ours, build_optimizer(ours, name, lr=0.01, weight_decay=0.1, **options), range(5))
    two = train(theirs, TORCHS[name](groups_of(theirs), lr=0.01, **options), range(5))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_neither_an_optimizer_nor_the_description_of_a_model_loads_torchs_compiler():
    code = """
import sys, torch
from ml_core.models import build_model, describe_model
from ml_core.solver.optim import OPTIMIZERS, build_optimizer, build_scheduler
model = build_model("cnn", widths=[8])
assert describe_model(model)["flops_per_patch"] > 0
for name in OPTIMIZERS:
    for options in ({}, {"fused": True}, {"exact": True}):
        optimizer = build_optimizer(model, name, lr=0.1, weight_decay=0.1, **options)
        schedule = build_scheduler(optimizer, "constant", epochs=1, steps_per_epoch=1)
        optimizer.zero_grad()
        model(torch.zeros(2, 3, 96, 96, dtype=torch.uint8)).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.load_state_dict(optimizer.state_dict())
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fused_step_is_the_same_up_to_rounding(name):
    plain, fused = small_model(), small_model()
    one = train(plain, build_optimizer(plain, name, lr=1e-3, weight_decay=0.1), range(5))
    two = train(
        fused, build_optimizer(fused, name, lr=1e-3, weight_decay=0.1, fused=True), range(5)
    )
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_a_fused_step_heeds_a_gradient_that_lies_otherwise_in_memory():
    torch.manual_seed(0)
    kernel = torch.randn(4, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(4, 8, 3, 3)
    weights = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = nn.ParameterList([nn.Parameter(kernel.clone())])
        optimizer = build_optimizer(model, "adamw", lr=0.1, weight_decay=0.0, fused=True)
        model[0].grad = gradient.contiguous(memory_format=layout)
        optimizer.step()
        weights.append(model[0].detach())
    assert torch.equal(weights[0], weights[1])


def test_a_checkpoint_goes_on_with_the_kind_of_step_that_it_was_begun_with():
    straight, resumed = small_model(), small_model()
    plain = build_optimizer(straight, "adamw", lr=0.01, weight_decay=0.1)
    before = build_optimizer(resumed, "adamw", lr=0.01, weight_decay=0.1)
    train(resumed, before, range(3))
    fused = build_optimizer(resumed, "adamw", lr=0.01, weight_decay=0.1, fused=True)
    fused.load_state_dict(before.state_dict())
    one, two = train(straight, plain, range(6)), train(resumed, fused, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_exact_wins_over_fused():
    built = build_optimizer(
        nn.Linear(2, 2), "adamw", lr=0.1, weight_decay=0.0, exact=True, fused=True
    )
    assert not built.param_groups[0]["fused"]
