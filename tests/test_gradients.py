"""Gradient norms: the total torch gives, split over the layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ml_core.solver.gradients import gradient_norms


def model_with_gradients(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2, bias=False))
    model(torch.randn(4, 5)).square().sum().backward()
    return model


def test_the_total_is_torchs_to_the_bit() -> None:
    for seed in range(20):
        model = model_with_gradients(seed)
        expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        assert torch.equal(gradient_norms(model)[0], expected)


def test_a_layers_norm_is_that_of_its_weight_and_bias_together() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1, bias=False))
    model[0].weight.grad = torch.tensor([[2.0, 3.0]])
    model[0].bias.grad = torch.tensor([6.0])
    model[1].weight.grad = torch.tensor([[24.0]])
    total, layers = gradient_norms(model)
    assert layers == pytest.approx({"0": 7.0, "1": 24.0})
    assert float(total) == pytest.approx(25.0)


def test_a_gradient_that_is_not_finite_makes_the_total_not_finite() -> None:
    model = model_with_gradients()
    model[0].bias.grad[0] = math.nan
    assert not math.isfinite(float(gradient_norms(model)[0]))


def test_a_layer_without_gradient_is_left_out() -> None:
    model = model_with_gradients()
    model[2].weight.grad = None
    assert set(gradient_norms(model)[1]) == {"0"}
