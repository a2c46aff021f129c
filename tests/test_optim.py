"""Learning-rate schedules worked by hand, and who is spared weight decay."""

import math

import pytest
import torch
from torch import nn

from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.solver.optim import OPTIMIZERS, SCHEDULES, build_optimizer, build_scheduler, lr_factor


def factors(name: str, epochs: int = 5, steps_per_epoch: int = 4, **options) -> list[float]:
    """Return the factor of every step of a training."""
    total = epochs * steps_per_epoch
    return [
        lr_factor(name, step, total=total, steps_per_epoch=steps_per_epoch, **options)
        for step in range(total)
    ]


def learning_rates(name: str, epochs: int, steps_per_epoch: int, **options) -> list[float]:
    """Return the learning rates that the optimizer really has at its steps."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    scheduler = build_scheduler(
        optimizer, name, epochs=epochs, steps_per_epoch=steps_per_epoch, **options
    )
    found = []
    for _ in range(epochs * steps_per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


# ---- schedules ---------------------------------------------------------------------------------


def test_constant_stays():
    assert factors("constant") == [1.0] * 20


def test_cosine_falls_from_one_to_min_factor_at_the_last_step():
    found = factors("cosine", min_factor=0.1)
    assert found[0] == 1.0
    assert found[-1] == pytest.approx(0.1, abs=1e-15)
    assert found[10] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 10 / 19)) / 2)
    assert found == sorted(found, reverse=True)


def test_step_drops_after_each_step_epochs():
    found = factors("step", step_epochs=2, gamma=0.5)
    assert found == [1.0] * 8 + [0.5] * 8 + [0.25] * 4


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_warm_up_rises_in_equal_steps_from_above_zero(name):
    found = factors(name, warmup_epochs=1)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert min(factors(name, warmup_epochs=0.5)[:2]) > 0


def test_cosine_after_warm_up_still_ends_at_min_factor():
    found = factors("cosine", warmup_epochs=1, min_factor=0.2)
    assert found[4] == 1.0
    assert found[-1] == pytest.approx(0.2)
    assert max(found) == 1.0


def test_one_cycle_starts_low_peaks_at_its_share_and_ends_lowest():
    found = factors("one_cycle", warmup_share=0.25, start_factor=0.04, min_factor=1e-3)
    assert found[0] == pytest.approx(0.04)
    assert found.index(max(found)) == 5 and found[5] == 1.0
    assert found[2] == pytest.approx(0.04 + 0.96 * (1 - math.cos(math.pi * 2 / 5)) / 2)
    assert found[-1] == pytest.approx(1e-3)
    assert found[:6] == sorted(found[:6]) and found[5:] == sorted(found[5:], reverse=True)


@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle", "step"])
@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 1), (1, 2), (2, 1), (3, 7)])
def test_factors_of_any_length_lie_between_zero_and_one_and_beyond_the_end(
    name, epochs, steps_per_epoch
):
    total = epochs * steps_per_epoch
    for step in range(total + 3):  # torch asks for one step more than there are
        assert 0 <= lr_factor(name, step, total=total, steps_per_epoch=steps_per_epoch) <= 1


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_a_step_beyond_the_end_keeps_the_last_factor(name):
    # torch asks for one, and a cosine taken further would rise again
    found = [lr_factor(name, s, total=9, steps_per_epoch=3, min_factor=0.1) for s in (8, 9, 12)]
    assert found == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle", "step"])
def test_the_optimizer_gets_the_factor_times_its_learning_rate(name):
    assert learning_rates(name, 3, 4) == pytest.approx([0.5 * f for f in factors(name, 3, 4)])


def test_plateau_drops_when_the_loss_stops_falling():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = build_scheduler(
        optimizer, "plateau", epochs=9, steps_per_epoch=1, gamma=0.1, patience=1
    )
    rates = []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.8):
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05])


# ---- optimizers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_kernels_and_matrices_decay(name):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 2))
    optimizer = build_optimizer(model, name, lr=0.1, weight_decay=0.3)
    assert isinstance(optimizer, OPTIMIZERS[name])
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {key: decay[id(value)] for key, value in model.named_parameters()} == {
        "0.weight": 0.3, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "3.weight": 0.3,
        "3.bias": 0.0,
    }  # fmt: skip
    assert all(group["lr"] == 0.1 for group in optimizer.param_groups)


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, "adam", lr=0.1, weight_decay=0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_a_model_without_biases_needs_no_second_group():
    optimizer = build_optimizer(nn.Linear(4, 2, bias=False), "sgd", lr=0.1, weight_decay=0.1)
    assert len(optimizer.param_groups) == 1


def test_unknown_names_are_refused_with_the_known_ones():
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="unknown optimizer 'admw'; there are: adamw, adam, sgd"):
        build_optimizer(model, "admw", lr=0.1, weight_decay=0.0)
    optimizer = build_optimizer(model, "sgd", lr=0.1, weight_decay=0.0)
    with pytest.raises(ConfigError, match=r"unknown scheduler 'cosin'.*Did you mean 'cosine'"):
        build_scheduler(optimizer, "cosin", epochs=1, steps_per_epoch=1)


@pytest.mark.parametrize("scheduler", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_and_schedule_of_the_config_can_be_built_with_all_its_keys(
    tmp_path, optimizer, scheduler
):
    path = tmp_path / "config.yaml"
    path.write_text("experiment_name: a\ndata: {data_path: x}\n", encoding="utf-8")
    names = (f"optimizer.name={optimizer}", f"scheduler.name={scheduler}")
    config = Config.load(path, names)
    built = build_optimizer(nn.Linear(2, 2), **config.optimizer.model_dump())
    for key, value in config.optimizer.model_dump(exclude={"name"}).items():
        assert built.param_groups[0][key] == value
    build_scheduler(built, epochs=2, steps_per_epoch=3, **config.scheduler.model_dump())
