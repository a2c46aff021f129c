"""The watch: what does not learn, what is dead, and what went bad first."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ml_core.solver.watch import check_learning, explain_non_finite, find_dead_units

Y_TRUE = np.arange(200) % 2


def nll_of(y_prob: np.ndarray, y_true: np.ndarray = Y_TRUE) -> np.ndarray:
    return -np.log(np.where(y_true == 1, y_prob, 1 - y_prob))


def noisy_scores(signal: float, num_patches: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y_true = np.arange(num_patches) % 2
    logit = generator.normal(size=num_patches) + signal * (2 * y_true - 1)
    return y_true, 1 / (1 + np.exp(-logit))


# ---- learning ----------------------------------------------------------------------------------


def test_a_constant_predictor_at_ln_2_is_not_learning_and_every_reason_is_named():
    y_prob = np.full(200, 0.5)
    dead = {"net.2": (64, 64), "net.5": (1, 32)}
    (finding,) = check_learning(Y_TRUE, y_prob, nll_of(y_prob), dead)
    assert (finding.id, finding.severity) == ("not-learning", "error")
    assert "ROC-AUC 0.500, 95 % interval 0.500 to 0.500, is not above 0.5." in finding.message
    assert "nearly the same probability (0.5000 to 0.5000" in finding.message
    assert f"the loss {math.log(2):.4f} is that of a model which knows only that 50% of the" in (
        finding.message
    )
    assert "64 of 64 units of net.2 are zero for every patch" in finding.message
    assert "net.5" not in finding.message


def test_a_constant_predictor_at_the_share_of_an_unbalanced_set_is_at_its_entropy():
    y_true = (np.arange(200) % 10 == 0).astype(np.int64)
    y_prob = np.full(200, 0.1)
    (finding,) = check_learning(y_true, y_prob, nll_of(y_prob, y_true), {})
    assert "knows only that 10% of the patches are tumour (0.3251)" in finding.message


def test_random_scores_are_not_learning_without_a_further_sign():
    y_true, y_prob = noisy_scores(signal=0.0)
    (finding,) = check_learning(y_true, y_prob, nll_of(y_prob, y_true), {})
    assert finding.id == "not-learning"
    assert finding.message.endswith("No further sign.")


def test_scores_that_point_the_wrong_way_are_not_learning():
    y_true, y_prob = noisy_scores(signal=-1.0)
    (finding,) = check_learning(y_true, y_prob, nll_of(y_prob, y_true), {})
    assert finding.id == "not-learning"
    assert "is not above 0.5" in finding.message


def test_a_sound_model_gives_no_finding():
    y_true, y_prob = noisy_scores(signal=1.0)
    assert check_learning(y_true, y_prob, nll_of(y_prob, y_true), {"net.2": (3, 64)}) == []


def test_a_weak_but_sure_signal_is_learning_though_the_loss_is_near_the_priors():
    y_true, y_prob = noisy_scores(signal=1.0)
    y_prob = 0.5 + (y_prob - 0.5) * 0.01
    assert check_learning(y_true, y_prob, nll_of(y_prob, y_true), {}) == []


def test_dead_units_of_a_model_that_learns_are_a_warning():
    y_true, y_prob = noisy_scores(signal=1.0)
    dead = {"net.2": (32, 64), "net.5": (15, 32)}
    (finding,) = check_learning(y_true, y_prob, nll_of(y_prob, y_true), dead)
    assert (finding.id, finding.severity) == ("dead-units", "warning")
    assert finding.message == "dead units: 32 of 64 units of net.2 are zero for every patch."


@pytest.mark.parametrize("label", [0, 1])
def test_validation_with_one_class_says_nothing_about_learning(label):
    y_true, y_prob = np.full(50, label), np.full(50, 0.5)
    assert check_learning(y_true, y_prob, nll_of(y_prob, y_true), {}) == []
    (finding,) = check_learning(y_true, y_prob, nll_of(y_prob, y_true), {"net.2": (64, 64)})
    assert finding.id == "dead-units"


def test_a_single_patch_of_a_class_gives_no_verdict():
    y_true, y_prob = np.array([0, 0, 0, 1]), np.full(4, 0.5)
    assert check_learning(y_true, y_prob, nll_of(y_prob, y_true), {}) == []


# ---- dead units --------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU()

    def forward(self, images):
        return self.relu(self.conv(images))


@pytest.fixture
def half_dead() -> nn.Sequential:
    """Two dead channels of four in `0.relu`, one dead unit of three in `3`; the last is no ReLU."""
    torch.manual_seed(0)
    model = nn.Sequential(
        Block(), nn.Flatten(), nn.Linear(4 * 25, 3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(3, 2)
    )
    with torch.no_grad():
        model[0].conv.bias.copy_(torch.tensor([-1e6, 1e6, -1e6, 1e6]))
        model[2].weight.zero_()
        model[2].bias.copy_(torch.tensor([1.0, 0.0, 2.0]))
    return model


def test_dead_units_are_counted_by_layer_name(half_dead):
    images = torch.rand(6, 3, 5, 5) * 255
    assert find_dead_units(half_dead, images) == {"0.relu": (2, 4), "3": (1, 3)}


def test_a_unit_that_answers_to_one_patch_is_alive(half_dead):
    images = torch.zeros(6, 3, 5, 5)
    with torch.no_grad():
        half_dead[0].conv.weight.fill_(1.0)
        half_dead[0].conv.bias.fill_(-10.0)
    assert find_dead_units(half_dead, images)["0.relu"] == (4, 4)
    images[3, 1, 4, 4] = 200.0
    assert find_dead_units(half_dead, images)["0.relu"] == (0, 4)


def test_looking_for_dead_units_changes_nothing(half_dead):
    half_dead.train()
    half_dead[0].eval()
    norm = half_dead.append(nn.BatchNorm1d(2))[-1]
    modes = [module.training for module in half_dead.modules()]
    images = torch.rand(6, 3, 5, 5)
    random_state = torch.get_rng_state()
    find_dead_units(half_dead, images)
    assert [module.training for module in half_dead.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert int(norm.num_batches_tracked) == 0
    assert no_hooks(half_dead)
    half_dead(images).sum().backward()  # the weights still take gradients


def test_modes_and_hooks_are_put_back_when_the_forward_pass_fails(half_dead):
    half_dead.train()
    with pytest.raises(RuntimeError):
        find_dead_units(half_dead, torch.rand(6, 7, 5, 5))
    assert all(module.training for module in half_dead.modules())
    assert no_hooks(half_dead)


def no_hooks(model: nn.Module) -> bool:
    return not any(module._forward_hooks for module in model.modules())


# ---- values that are not finite ----------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.last = nn.Linear(4, 2)

    def forward(self, images):
        return self.last(self.block(self.first(images.float().flatten(1))))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def explain(net: nn.Module, images: torch.Tensor, loss: float = math.nan) -> str:
    index = [10 * row + 3 for row in range(len(images))]
    text = explain_non_finite(net, images, index, loss=loss, step=17)
    assert no_hooks(net)
    return text


def test_inputs_that_are_not_finite_are_named_by_their_patch_indices(net):
    images = torch.rand(6, 1, 2, 2)
    images[1, 0, 0, 0] = math.nan
    images[4, 0, 1, 1] = math.inf
    text = explain(net, images)
    assert text.startswith("step 17, patches 3, 13, 23, 33, 43, 53: the inputs went bad first")
    assert "2 of 6 patches of this batch hold NaN or infinite pixels (index 13, 43)" in text


def test_a_long_batch_is_named_by_its_first_ten(net):
    text = explain(net, torch.full((30, 1, 2, 2), math.nan))
    assert "patches 3, 13, 23, 33, 43, 53, 63, 73, 83, 93, ...:" in text


def test_weights_that_are_not_finite_are_named(net):
    with torch.no_grad():
        net.block[0].bias[2] = math.inf
        net.last.weight[0, 0] = math.nan
    text = explain(net, torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    assert "the weights went bad first: block.0.bias holds NaN" in text
    assert "(2 parameters do)" in text


def test_the_first_layer_whose_output_overflows_is_named(net):
    with torch.no_grad():
        net.first.weight.fill_(1e30)
        net.block[0].weight.fill_(1e30)
    text = explain(net, torch.ones(2, 1, 2, 2))
    assert "inputs and weights are finite, the output of block.0 went bad first" in text


def test_an_overflow_outside_any_layer_is_the_models_output():
    class Root(Net):
        def forward(self, images):
            return super().forward(images) / 0

    text = explain(Root(), torch.ones(2, 1, 2, 2))
    assert "the output of the model went bad first" in text


def test_a_loss_that_is_not_finite_on_finite_logits_is_named(net):
    text = explain(net, torch.ones(2, 1, 2, 2), loss=math.inf)
    assert "inputs, weights and logits are finite, the loss itself is inf" in text


def test_the_gradient_that_went_bad_first_is_the_one_nearest_to_the_loss(net):
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    net.first.weight.grad[0, 0] = math.nan  # it flowed on to here
    net.block[0].weight.grad[0, 0] = math.inf
    text = explain(net, torch.ones(2, 1, 2, 2), loss=0.7)
    assert text.endswith("the loss 0.7 is finite, the gradient of block.0.weight went bad first")


def test_gradients_that_only_overflow_in_their_norm_are_said_to(net):
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    text = explain(net, torch.ones(2, 1, 2, 2), loss=0.7)
    assert "the norm of all gradients together went bad first" in text
