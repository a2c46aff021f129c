"""Exact optimizers: torch's updates to a rounding, its state, the same bits however cut."""

import math

import pytest
import torch
from torch import nn

from ml_core.errors import ConfigError
from ml_core.numerics import exact_optim
from ml_core.numerics.exact_norm import exact_norms, joint_norm
from ml_core.numerics.exact_optim import ExactAdam, ExactAdamW, ExactSGD, exact_clip_
from ml_core.solver.optim import EXACT_OPTIMIZERS, OPTIMIZERS, build_optimizer

OPTIONS = {
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99)},
    "adamw without decay": {"name": "adamw", "lr": 0.01, "weight_decay": 0.0},
    "adam": {"name": "adam", "lr": 0.01, "weight_decay": 0.1},
    "sgd": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.9},
    "nesterov": {
        "name": "sgd", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.9, "nesterov": True,
    },
    "plain sgd": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.0},
}  # fmt: skip


def trained(options, exact, num_steps=20, dtype=torch.float32, layout=torch.contiguous_format):
    """Return model and optimizer after some steps on gradients that depend on nothing else."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(100, 80)).to(dtype)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
    model.to(memory_format=layout)
    optimizer = build_optimizer(model, **options, exact=exact)
    for _ in range(num_steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(dtype)
        optimizer.step()
    return model, optimizer


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_weights_are_torch_s_in_float64(options):
    # torch's own in float64 rounds elsewhere by 1e-16; a wrong formula would show at once
    native, exact = (trained(options, exact, dtype=torch.float64)[0] for exact in (False, True))
    for ours, theirs in zip(exact.parameters(), native.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_state_and_groups_are_torch_s_so_that_checkpoints_are_alike(options):
    (_, native), (_, exact) = (trained(options, exact) for exact in (False, True))
    ours, theirs = exact.state_dict(), native.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, values in theirs["state"].items():
        assert ours["state"][number].keys() == values.keys()
        for key, value in values.items():
            if value is None:
                assert ours["state"][number][key] is None
                continue
            found = ours["state"][number][key]
            assert (found.shape, found.dtype) == (value.shape, value.dtype)
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_pieces_and_memory_formats_change_nothing(options, monkeypatch):
    whole, _ = trained(options, exact=True)
    last, _ = trained(options, exact=True, layout=torch.channels_last)
    assert same(whole, last)
    for size in (333, 10**9):
        monkeypatch.setattr(exact_optim, "_PIECE", size)
        assert same(trained(options, exact=True)[0], whole)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_resumed_optimizer_goes_on_to_the_same_bits(options):
    straight, _ = trained(options, exact=True)
    model, optimizer = trained(options, exact=True, num_steps=10)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.randn(parameter.shape, generator=generator)
    again = build_optimizer(model, **options, exact=True)
    again.load_state_dict(optimizer.state_dict())
    for step in range(20):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        if step >= 10:
            again.step()
    assert same(model, straight)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_exact_optimizer_is_one_of_torch_s_and_is_built_when_asked_for(name):
    assert issubclass(EXACT_OPTIMIZERS[name], OPTIMIZERS[name])
    built = build_optimizer(nn.Linear(2, 2), name, lr=0.1, weight_decay=0.0, exact=True)
    assert type(built) is EXACT_OPTIMIZERS[name]


def test_parameters_without_a_gradient_are_left_alone():
    for make in (ExactAdamW, ExactAdam, ExactSGD):
        used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))
        optimizer = make([used, unused], lr=0.1)
        used.grad = torch.ones(3)
        optimizer.step()
        assert not torch.equal(used, torch.ones(3)) and unused.item() == 1
        unused.grad = torch.ones(())  # a number, not a row
        optimizer.step()
        assert unused.item() < 1


@pytest.mark.parametrize("option", ["amsgrad", "maximize"])
def test_a_variant_that_is_not_offered_is_refused(option):
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = ExactAdamW([parameter], lr=0.1, **{option: True})
    with pytest.raises(ConfigError, match=f"ExactAdamW has no {option}"):
        optimizer.step()


# ---- the norm ----------------------------------------------------------------------------------


def test_the_norm_is_that_of_float64():
    generator = torch.Generator().manual_seed(0)
    for num, scale in ((1, 1.0), (7, 1e-30), (1000, 1e30), (3_000_000, 1e-3)):
        values = torch.randn(num, generator=generator) * scale
        truth = values.double().norm().item()
        assert exact_norms([values]) == [pytest.approx(truth, rel=1e-6)]


def test_many_small_elements_beside_a_large_one_are_felt():
    values = torch.full((1_000_000,), 1e-4)  # all squares are rounded the same way
    values[0] = 1.0
    truth = values.double().norm().item()
    assert exact_norms([values])[0] == pytest.approx(truth, rel=1e-6)


def test_the_order_of_the_elements_changes_nothing_but_for_torch_s_own_norm():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(100_000, generator=generator)
    orders = [torch.randperm(len(values), generator=generator) for _ in range(5)]
    assert {norm.hex() for norm in exact_norms([values[order] for order in orders])} == {
        exact_norms([values])[0].hex()
    }
    assert len({torch.linalg.vector_norm(values[order]).item() for order in orders}) > 1


def test_the_joint_norm_does_not_depend_on_the_order_of_the_layers():
    norms = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    orders = [torch.randperm(50, generator=torch.Generator().manual_seed(n)) for n in range(20)]
    assert {joint_norm(norms[order].tolist()) for order in orders} == {joint_norm(norms.tolist())}
    assert joint_norm([3.0, 4.0]) == 5.0
    assert joint_norm([]) == 0.0


def test_norms_of_nothing_and_of_what_is_not_finite():
    rows = [torch.zeros(3), torch.tensor([1.0, math.inf]), torch.tensor([1.0, math.nan])]
    zero, infinite, nan = exact_norms([*rows])
    assert (zero, infinite) == (0.0, math.inf) and math.isnan(nan)
    assert exact_norms([]) == []
    assert exact_norms([torch.zeros(0), torch.tensor(-2.0)]) == [0.0, 2.0]


def with_gradients(*gradients):
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return [*parameters, nn.Parameter(torch.zeros(2))]  # and one that was not used


def test_clipping_is_torch_s():
    gradients = [torch.randn(40, 30), torch.randn(30)]
    ours, theirs = with_gradients(*gradients), with_gradients(*gradients)
    norm = exact_clip_(ours, 1.0)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, 1.0).item(), rel=1e-6)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert exact_clip_(ours, 1.0) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("limit", [1e9, math.inf])
def test_what_is_small_enough_is_not_scaled(limit):
    gradients = [torch.randn(40, 30)]
    parameters = with_gradients(*gradients)
    exact_clip_(parameters, limit)
    assert torch.equal(parameters[0].grad, gradients[0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_is_returned_and_nothing_changed(value):
    gradient = torch.tensor([1.0, value, 3.0])
    parameters = with_gradients(gradient, torch.ones(3))
    assert not math.isfinite(exact_clip_(parameters, 1.0))
    assert torch.equal(parameters[1].grad, torch.ones(3))
    assert parameters[0].grad[2] == 3.0
