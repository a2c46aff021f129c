"""Initial weights are functions of (seed, name) and follow torch's own distribution."""

import math

import pytest
import torch
from torch import nn

from ml_core.models import build_model
from ml_core.numerics.initial_weights import draw_weights


def drawn(seed=1, name="cnn", **options):
    model = build_model(name, (3, 24, 24), **options)
    assert draw_weights(model, seed) == []
    return model.state_dict()


def test_nothing_but_seed_and_name_decides():
    torch.manual_seed(0)
    first = drawn(widths=[8, 16])
    torch.manual_seed(1)
    torch.rand(7)
    again = drawn(widths=[8, 16])
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_torch_s_own_weights_do_depend_on_what_was_drawn_before():
    torch.manual_seed(0)
    first = nn.Linear(3, 3).weight
    torch.manual_seed(0)
    torch.rand(7)
    assert not torch.equal(nn.Linear(3, 3).weight, first)


def test_a_layer_more_leaves_the_others_as_they_were():
    deep = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    flat = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for model in (deep, flat):
        draw_weights(model, 1)
    assert torch.equal(deep[1].weight, flat[1].weight)


def test_every_seed_and_every_name_draws_its_own():
    names = [name for name, value in drawn(widths=[8, 8]).items() if value.ndim == 4]
    found = [drawn(seed, widths=[8, 8])[name].flatten()[:50] for seed in (1, 2) for name in names]
    together = torch.cat(found)
    assert len(together.unique()) > 0.999 * len(together)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(300, 200),
        nn.Conv2d(30, 40, 3),
        nn.Conv1d(30, 400, 5),
        nn.ConvTranspose2d(40, 30, 3),
    ],
)
def test_the_distribution_is_torch_s_own(layer):
    own = {name: value.detach().clone() for name, value in layer.named_parameters()}
    draw_weights(layer, 1)
    for name, value in layer.named_parameters():
        assert value.shape == own[name].shape and value.dtype == torch.float32
        highest = 1 / math.sqrt(layer.weight[0].numel())
        assert value.abs().max() <= highest and own[name].abs().max() <= highest
        if value.numel() > 1000:
            assert value.abs().max() > 0.99 * highest
            assert value.std().item() == pytest.approx(highest / math.sqrt(3), rel=0.03)
            assert abs(value.mean().item()) < 4 * highest / math.sqrt(3 * value.numel())
            assert not torch.equal(value, own[name])


def test_norms_and_buffers_stay_as_they_are():
    model = nn.Sequential(nn.GroupNorm(2, 8), nn.BatchNorm2d(8), nn.LayerNorm(8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert draw_weights(model, 1) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_parameters_of_another_kind_are_left_and_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.PReLU())
    model.register_parameter("scale", nn.Parameter(torch.tensor(7.0)))
    assert draw_weights(model, 1) == ["scale", "1.weight"]
    assert model.scale.item() == 7.0


def test_shared_weights_are_drawn_once():
    first = nn.Linear(4, 4)
    model = nn.Sequential(first, nn.Linear(4, 4))
    model[1].weight = first.weight
    draw_weights(model, 1)
    alone = nn.Sequential(nn.Linear(4, 4))
    draw_weights(alone, 1)
    assert torch.equal(model[1].weight, alone[0].weight)


def test_frozen_weights_and_channels_last_are_drawn_alike():
    model, other = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Conv2d(3, 4, 3))
    model[0].weight.requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    for each in (model, other):
        draw_weights(each, 1)
    assert torch.equal(model[0].weight, other[0].weight)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_first_weights_are_these_on_every_machine():
    layer = nn.Sequential(nn.Linear(4, 1))
    draw_weights(layer, 42)
    assert [w.hex() for w in layer[0].weight[0].tolist()] == [
        "-0x1.c0e13a0000000p-2", "0x1.9c0f380000000p-4", "0x1.a2d7020000000p-2",
        "-0x1.57698a0000000p-2",
    ]  # fmt: skip
