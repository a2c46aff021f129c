"""Models: what goes in, what comes out, and that a saved one can be built again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from ml_core.errors import ConfigError
from ml_core.models import (
    CNN,
    MLP,
    MODELS,
    PatchClassifier,
    Preprocess,
    build_from_spec,
    build_model,
    describe_model,
    model_options,
    model_spec,
)
from ml_core.models.cnn import CentreAndWholePool

OPTIONS: dict[str, dict[str, Any]] = {"mlp": {"hidden_units": [32, 16]}, "cnn": {}}
NAMES = sorted(OPTIONS)


def make_model(name: str, **changes: Any) -> PatchClassifier:
    torch.manual_seed(0)
    return build_model(name, **{**OPTIONS[name], **changes})


def make_patches(num_patches: int, seed: int = 0) -> torch.Tensor:
    """Return uint8 patches as a loader gives them: a (B, 3, H, W) view of channels-last memory."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (num_patches, 96, 96, 3), generator=generator, dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


def test_every_model_is_tested() -> None:
    assert set(NAMES) == set(MODELS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_patches", [1, 2, 7])
def test_patches_become_two_finite_logits(name: str, num_patches: int) -> None:
    logits = make_model(name)(make_patches(num_patches))
    assert logits.shape == (num_patches, 2)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_grey_levels_as_uint8_and_as_float_give_the_same_logits(name: str) -> None:
    model, patches = make_model(name).eval(), make_patches(4)
    torch.testing.assert_close(model(patches), model(patches.float()))


@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_and_more_classes_are_possible(name: str) -> None:
    model = make_model(
        name, input_shape=(1, 64, 48), num_classes=5, preprocess=Preprocess("none", [0], [1])
    )
    assert model(torch.zeros(3, 1, 64, 48)).shape == (3, 5)


def test_the_course_builds_an_mlp_without_naming_preprocessing() -> None:
    model = MLP([3, 96, 96], [64, 32], num_classes=2, dropout_rate=0.2)
    assert model(torch.randn(5, 3, 96, 96)).shape == (5, 2)


def test_the_mlp_is_the_course_stack_of_layers() -> None:
    layers = [type(layer) for layer in MLP((3, 8, 8), [4, 5]).net.children()]
    hidden = [nn.Linear, nn.ReLU, nn.Dropout]
    assert layers == [nn.Flatten, *hidden, *hidden, nn.Linear]


@pytest.mark.parametrize("name", NAMES)
def test_one_step_moves_every_parameter(name: str) -> None:
    model = make_model(name)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    nn.functional.cross_entropy(model(make_patches(8)), torch.arange(8) % 2).backward()
    optimizer.step()
    unmoved = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert unmoved == []


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_gets_the_same_logits_whatever_else_is_in_the_batch(name: str) -> None:
    model, patches = make_model(name).eval(), make_patches(6)
    alone = torch.cat([model(patches[row : row + 1]) for row in range(6)])
    torch.testing.assert_close(model(patches), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_patches_are_not_mixed_while_training_either(name: str) -> None:
    """Gradients by patch need it: a batch statistic would spread one patch over all."""
    model, patches = make_model(name, dropout_rate=0.0).train(), make_patches(6)
    alone = torch.cat([model(patches[row : row + 1]) for row in range(6)])
    torch.testing.assert_close(model(patches), alone, rtol=1e-4, atol=1e-5)


def test_channels_last_and_contiguous_memory_give_the_same_logits() -> None:
    model, patches = make_model("cnn").eval(), make_patches(4)
    contiguous = model(patches.contiguous())
    channels_last = model.to(memory_format=torch.channels_last)(patches)
    torch.testing.assert_close(contiguous, channels_last, rtol=1e-4, atol=1e-5)


def test_the_pool_gives_the_centres_peak_and_mean_and_the_mean_of_all() -> None:
    features = torch.zeros(1, 1, 6, 6)
    features[0, 0, 2, 3] = 8.0  # in the central 2 x 2 of 6 x 6
    features[0, 0, 0, 0] = 28.0  # in the rim
    # peak of the centre 8, its mean 8 / 4, mean of all (8 + 28) / 36
    assert CentreAndWholePool()(features).tolist() == [[8.0, 2.0, 1.0]]


def test_the_cnn_weighs_the_centre_more_than_the_rim() -> None:
    model, patches = make_model("cnn").eval(), make_patches(4).float().requires_grad_()
    model(patches)[:, 1].sum().backward()
    assert patches.grad is not None
    weight = patches.grad.abs().mean(dim=(0, 1))  # (H, W)
    assert weight[32:64, 32:64].mean() > 1.5 * weight.mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_relu_is_a_module_used_once(name: str) -> None:
    """Dead units are counted by hooks: a shared or functional ReLU would hide them."""
    model, calls = make_model(name), []
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda module, inputs, output: calls.append(module))
    model(make_patches(1))
    assert relus
    assert len(calls) == len(relus) == len(set(calls))


def test_preprocess_scales_grey_levels_and_subtracts_the_mean() -> None:
    preprocess = Preprocess("standard", mean=[0.2, 0.4, 0.5], std=[0.1, 0.2, 0.5])
    grey_levels = torch.tensor([51, 204, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    # 51 / 255 = 0.2, 204 / 255 = 0.8, 255 / 255 = 1.0
    torch.testing.assert_close(preprocess(grey_levels).flatten(), torch.tensor([0.0, 2.0, 1.0]))


def test_preprocess_none_only_scales() -> None:
    preprocess = Preprocess("none", mean=[0.2, 0.4, 0.5], std=[0.1, 0.2, 0.5])
    grey_levels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(preprocess(grey_levels).flatten(), torch.tensor([0.0, 0.2, 1.0]))


def test_preprocess_keeps_shape_and_memory_order() -> None:
    prepared = Preprocess()(make_patches(2))
    assert prepared.shape == (2, 3, 96, 96)
    assert prepared.is_contiguous(memory_format=torch.channels_last)


def test_weights_carry_the_preprocessing() -> None:
    saved = make_model("cnn", preprocess=Preprocess(mean=[0.5] * 3, std=[0.25] * 3)).state_dict()
    other = make_model("cnn")
    other.load_state_dict(saved)
    assert other.preprocess is not None
    assert other.preprocess.mean.tolist() == [0.5] * 3
    assert other.preprocess.std.tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("imagenet",), "unknown normalization 'imagenet'; allowed: standard, none"),
        (("standard", [178.0] * 3, [60.0] * 3), "divide statistics of grey levels by 255"),
        (("standard", [0.5] * 3, [0.0, 0.1, 0.1]), "std above 0"),
        (("standard", [0.5] * 3, [0.1]), "mean has 3 values and std 1"),
    ],
)
def test_preprocess_refuses_what_would_spoil_patches(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preprocess(*arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess("none")])
def test_a_model_built_from_its_spec_gives_the_same_logits(
    name: str, preprocess: Preprocess
) -> None:
    model = make_model(name, dropout_rate=0.3, preprocess=preprocess).eval()
    spec = json.loads(json.dumps(model_spec(model)))
    assert spec["options"]["dropout_rate"] == 0.3
    again = build_from_spec(spec).eval()
    again.load_state_dict(model.state_dict())
    assert model_spec(again) == model_spec(model)
    assert torch.equal(again(make_patches(3)), model(make_patches(3)))


def test_a_spec_names_every_option_of_the_model() -> None:
    for name in NAMES:
        assert set(model_spec(make_model(name))["options"]) == set(model_options(name))


def test_an_unknown_name_or_option_gets_the_nearest_one_suggested() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown model 'ccn'; there are: mlp, cnn\. Did you mean 'cnn'"
    ):
        build_model("ccn")
    with pytest.raises(ConfigError, match=r"no option 'hiden_units'.*Did you mean 'hidden_units'"):
        build_model("mlp", hiden_units=[8])


def test_an_option_that_must_be_given_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="hidden_units"):
        build_model("mlp")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_units": []}, r"hidden_units \[\] must be one or more whole numbers above 0"),
        ({"hidden_units": [64, 0]}, "whole numbers above 0"),
        ({"hidden_units": [64.0]}, "whole numbers above 0"),
        ({"dropout_rate": 1.0}, "at least 0 and below 1"),
        ({"num_classes": 1}, "num_classes 1"),
        ({"input_shape": (96, 96)}, "channels, height, width"),
        ({"input_shape": (1, 96, 96), "preprocess": Preprocess()}, "3 channel means"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"input_shape": (3, 96, 96), "hidden_units": [8]}
    with pytest.raises(ValueError, match=words):
        MLP(**{**arguments, **changes})


def test_a_bad_value_in_a_config_names_the_model() -> None:
    with pytest.raises(ConfigError, match="model 'mlp': dropout_rate 2"):
        build_model("mlp", hidden_units=[8], dropout_rate=2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 96, 96), (2, 3, 64, 64), (2, 96, 96, 3), (2, 1, 96, 96)])
def test_patches_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes patches of shape \(B, 3, 96, 96\), got"):
        make_model(name)(torch.zeros(shape))


@pytest.mark.parametrize("name", NAMES)
def test_grey_levels_mean_the_same_as_bytes_and_as_floats(name: str) -> None:
    model, patches = make_model(name).eval(), make_patches(2)
    assert torch.equal(model(patches), model(patches.float()))


def test_the_cost_of_an_mlp_is_that_of_its_matrices() -> None:
    described = describe_model(build_model("mlp", hidden_units=[128, 64]))
    weights = 27648 * 128 + 128 * 64 + 64 * 2
    assert described == {
        "name": "mlp",
        "num_parameters": weights + 128 + 64 + 2,
        "flops_per_patch": 2 * weights,
    }


def test_describing_a_model_changes_nothing() -> None:
    model = make_model("cnn").train()
    random_state = torch.get_rng_state()
    describe_model(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_averaging_orientations_makes_the_answer_the_same_whichever_way_a_patch_lies() -> None:
    model, patches = make_model("cnn", average_orientations=True).eval(), make_patches(2)
    logits = model(patches)
    for turned in (patches.flip(2), patches.transpose(2, 3), torch.rot90(patches, 3, (2, 3))):
        torch.testing.assert_close(model(turned), logits, rtol=1e-4, atol=1e-5)
    plain = make_model("cnn").eval()
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(plain(patches.flip(2)), plain(patches), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="square"):
        CNN((3, 64, 96), average_orientations=True)
