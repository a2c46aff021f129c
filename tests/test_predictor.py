import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from ml_core.errors import DataError, TrainingError
from ml_core.evaluation.predictor import predict


class Batch(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor | None
    index: torch.Tensor


class Net(nn.Module):
    """Batch norm and dropout: both behave differently while training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(3, 2)
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, torch.is_inference_mode_enabled()))
        features = self.norm(images.float() / 255).mean(dim=(2, 3))
        return self.linear(self.drop(features)) * 20


@pytest.fixture
def model() -> Net:
    torch.manual_seed(0)
    net = Net()
    net(torch.randint(0, 256, (16, 3, 8, 8)))  # gives batch norm something to remember
    return net


def make_batches(num_patches=50, batch_size=16, labelled=True) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num_patches, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(num_patches) % 2
    index = torch.arange(num_patches) * 3 + 5
    return [
        Batch(
            images[i : i + batch_size],
            labels[i : i + batch_size] if labelled else None,
            index[i : i + batch_size],
        )
        for i in range(0, num_patches, batch_size)
    ]


def test_each_patch_gets_its_softmax_probability_label_and_index_in_order(model):
    batches = make_batches()
    predictions = predict(model, batches, "cpu", split="valid")
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(batch.images) for batch in batches]).double()
    assert predictions.split == "valid"
    assert predictions.y_prob == pytest.approx(logits.softmax(dim=1)[:, 1].numpy(), abs=1e-15)
    assert predictions.logit == pytest.approx((logits[:, 1] - logits[:, 0]).numpy())
    assert predictions.nll == pytest.approx(
        nn.functional.cross_entropy(logits, torch.arange(50) % 2, reduction="none").numpy()
    )
    assert predictions.index.tolist() == [3 * i + 5 for i in range(50)]
    assert predictions.y_true.tolist() == [i % 2 for i in range(50)]
    dtypes = [getattr(predictions, name).dtype for name in ("y_prob", "index", "y_true")]
    assert dtypes == [np.float64, np.int64, np.int64]


def test_weights_buffers_gradients_and_random_state_are_untouched(model):
    model.train()
    model(torch.randint(0, 256, (4, 3, 8, 8))).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    random_state = torch.get_rng_state()
    predict(model, make_batches(), "cpu")
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_model_is_evaluated_without_a_graph_and_gets_every_mode_back(model):
    model.train()
    model.norm.eval()  # frozen by its owner, and to stay so
    model.seen.clear()
    predict(model, make_batches(), "cpu")
    assert set(model.seen) == {(False, True)}
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)


def test_the_mode_comes_back_after_an_error_too(model):
    model.train()

    def interrupted():
        yield make_batches()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model, interrupted(), "cpu")
    assert model.training


def test_the_batch_size_does_not_change_a_probability(model):
    small = predict(model, make_batches(batch_size=7), "cpu")
    large = predict(model, make_batches(batch_size=50), "cpu")
    assert small.y_prob == pytest.approx(large.y_prob, abs=1e-6)


def test_patches_without_labels_are_predicted(model):
    predictions = predict(model, make_batches(labelled=False), "cpu")
    assert predictions.y_true is None
    assert len(predictions) == 50


def test_labels_for_some_batches_only_are_refused(model):
    batches = make_batches()
    batches[1] = batches[1]._replace(labels=None)
    with pytest.raises(DataError, match="3 of 4 batches have labels"):
        predict(model, batches, "cpu")


def test_no_patch_at_all_is_refused(model):
    with pytest.raises(DataError, match="the data gave no patch"):
        predict(model, [], "cpu")


def test_logits_that_are_not_finite_name_the_patches_and_blame_the_weights(model):
    batches = make_batches()
    batches[2].images[3] = 0

    class Breaks(nn.Module):
        def forward(self, images):
            logits = torch.zeros(len(images), 2)
            logits[images.flatten(1).sum(dim=1) == 0, 1] = torch.nan
            return logits

    with pytest.raises(TrainingError, match=r"1 of 50 patches whose pixels are finite: index 110"):
        predict(Breaks(), batches, "cpu")


def test_pixels_that_are_not_finite_name_the_patches_and_blame_the_data(model):
    batches = [batch._replace(images=batch.images.float()) for batch in make_batches()]
    batches[0].images[2, 0, 4, 4] = torch.nan
    batches[3].images[1, 2, 0, 0] = torch.inf
    with pytest.raises(DataError, match=r"2 of 50 patches hold pixels .*: index 11, 152\. Exclude"):
        predict(model, batches, "cpu")


def test_bf16_stays_near_fp32_and_other_precisions_are_refused(model):
    fp32 = predict(model, make_batches(), "cpu")
    bf16 = predict(model, make_batches(), "cpu", precision="bf16")
    assert bf16.y_prob == pytest.approx(fp32.y_prob, abs=0.1)
    assert not np.array_equal(bf16.y_prob, fp32.y_prob)
    assert bf16.y_prob.dtype == np.float64
    with pytest.raises(ValueError, match="unknown precision 'fp16'; allowed: fp32, bf16"):
        predict(model, make_batches(), "cpu", precision="fp16")


def test_a_model_of_three_classes_is_refused():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batches = [batch._replace(images=batch.images.float()) for batch in make_batches()]
    with pytest.raises(ValueError, match=r"gives \(16, 3\) for 16 patches"):
        predict(model, batches, "cpu")


def test_progress_counts_every_patch(model):
    counts = []
    predict(model, make_batches(), "cpu", progress=counts.append)
    assert counts == [16, 16, 16, 2]


def test_huge_logits_give_probabilities_and_losses_without_overflow():
    class Certain(nn.Module):
        def forward(self, images):
            sign = torch.where(torch.arange(len(images)) % 2 == 0, 1.0, -1.0)
            return torch.stack([-1e30 * sign, 1e30 * sign], dim=1)

    with np.errstate(all="raise", under="ignore"):
        predictions = predict(Certain(), make_batches(4), "cpu")
    assert predictions.y_prob.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert np.isfinite(predictions.nll).all()


def test_memory_does_not_grow_with_the_number_of_patches(tmp_path):
    """Small results kept between batches of images pinned the heap: 27 KB a patch were lost."""
    code = """
import numpy as np, torch
from ml_core.evaluation.predictor import predict
from ml_core.models import MLP
from ml_core.pipeline.parts.unlabelled_batch import unlabelled

def private_mib():
    lines = open("/proc/self/status").read().split("\\n")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

def batches(num):
    for start in range(0, num, 256):
        yield unlabelled(np.zeros((256, 96, 96, 3), np.uint8), np.arange(start, start + 256))

model = MLP((3, 96, 96), [4])
predict(model, batches(1024), "cpu")
before = private_mib()
predict(model, batches(24576), "cpu")
print(private_mib() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much memory a process holds")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 324  # MiB of 648 of images; the heap varies by batches of 27


class Maps(nn.Module):
    """A convolution, its mean as logits; notes how many patches it gets at once."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 3)
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return self.convolution(images.float() / 255).mean(dim=(2, 3)) * 20


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_convolutions_get_a_batch_in_pieces_and_every_patch_its_own_logits():
    net = Maps()
    in_pieces = predict(net, make_batches(100, 80), "cpu")
    assert net.sizes == [32, 32, 16, 20]
    one_by_one = predict(net, make_batches(100, 1), "cpu")
    assert in_pieces.index.tolist() == [3 * i + 5 for i in range(100)]
    np.testing.assert_allclose(in_pieces.logit, one_by_one.logit, atol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_linear_layers_and_exact_arithmetic_get_whole_batches(model):
    model.seen.clear()
    predict(model, make_batches(100, 80), "cpu")
    assert len(model.seen) == 2
    net = Maps()
    predict(net, make_batches(100, 80), "cpu", precision="exact")
    assert net.sizes == [80, 20]
