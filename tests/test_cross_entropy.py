"""The exact loss: torch's in float64, rounded once, patch by patch."""

import math

import pytest
import torch
import torch.nn.functional as F

from ml_core.numerics.exact.cross_entropy import exact_cross_entropy


@pytest.fixture
def logits():
    return (5 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()


LABELS = torch.arange(64) % 2


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_loss_and_gradient_are_torch_s_in_float64_rounded_once(num_classes, label_smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(64, num_classes, generator=generator)).requires_grad_()
    labels = torch.randint(0, num_classes, (64,), generator=generator)
    weights = torch.rand(64, generator=generator)
    found = exact_cross_entropy(logits, labels, label_smoothing)
    truth = F.cross_entropy(
        logits.double(), labels, reduction="none", label_smoothing=label_smoothing
    )
    assert found.dtype == torch.float32 and found.shape == (64,)
    torch.testing.assert_close(found.double(), truth, rtol=2**-24, atol=1e-14)
    ours = torch.autograd.grad(found, logits, weights)[0]
    theirs = torch.autograd.grad(truth, logits, weights.double())[0]
    torch.testing.assert_close(ours, theirs, rtol=2**-23, atol=1e-14)


def test_a_patch_s_loss_does_not_depend_on_its_batch(logits):
    whole = exact_cross_entropy(logits, LABELS)
    parts = [exact_cross_entropy(logits[i : i + 1], LABELS[i : i + 1]) for i in range(64)]
    assert torch.equal(torch.cat(parts), whole)


def test_logits_far_apart_neither_overflow_nor_lose_the_loss():
    logits = torch.tensor([[3e38, -3e38], [0.0, 80.0], [-200.0, 0.0]])
    found = exact_cross_entropy(logits, torch.tensor([0, 1, 0]))
    assert found[0] == 0
    assert found[1].item() == pytest.approx(math.exp(-80), rel=1e-6)
    assert found[2] == 200


def test_the_loss_of_what_is_not_finite_is_not_finite():
    logits = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [-math.inf, math.inf]])
    assert not exact_cross_entropy(logits, torch.tensor([0, 1, 0])).isfinite().any()


def test_a_label_out_of_range_is_an_error(logits):
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        exact_cross_entropy(logits, LABELS + 1)


def test_the_bits_of_a_loss_are_these_on_every_machine():
    logits = torch.tensor([[0.25, -1.5], [3.0, 2.0]], requires_grad=True)
    losses = exact_cross_entropy(logits, torch.tensor([1, 0]), 0.1)
    losses.sum().backward()
    assert [x.hex() for x in losses.tolist()] == ["0x1.d29e0c0000000p+0", "0x1.73fae00000000p-2"]
    assert [x.hex() for x in logits.grad[0].tolist()] == [
        "0x1.9a998e0000000p-1",
        "-0x1.9a998e0000000p-1",
    ]
