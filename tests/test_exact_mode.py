"""Whole models in exact arithmetic: what it carries, what it refuses, what no longer matters."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ml_core.errors import ConfigError
from ml_core.models import build_model
from ml_core.numerics.arithmetic import PRECISIONS, arithmetic
from ml_core.numerics.keyed_dropout import keyed_dropout

SMALL = {
    "cnn": {"input_shape": (3, 24, 24), "average_orientations": True},
    "mlp": {"input_shape": (3, 16, 16), "hidden_units": [32, 16]},
}
# The smallest program that trains: it prints a digest of the loss and the gradients.
PROGRAM = """
import hashlib, sys
import torch
import torch.nn.functional as F
from ml_core.models import build_model
from ml_core.numerics.arithmetic import arithmetic
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
model = build_model("cnn", input_shape=(3, 48, 48), dropout_rate=0.0)
for number, parameter in enumerate(model.parameters()):
    words = torch.arange(parameter.numel()) * 0x9E3779B1 % 2**32
    drawn = (words.double() / 2**32 - 0.5).float().view(parameter.shape)
    parameter.data.copy_(drawn * 0.5)
images = (torch.arange(8 * 3 * 48 * 48) * 0x9E3779B1 >> 13).remainder(256)
images = images.to(torch.uint8).view(8, 3, 48, 48)
labels = torch.arange(8) % 2
for precision in ("exact", "fp32"):
    model.zero_grad()
    with arithmetic(precision, "cpu"):
        losses = F.cross_entropy(model(images), labels, reduction="none")
        loss = losses.sum()
    loss.backward()
    bits = [losses.detach(), *(p.grad for p in model.parameters())]
    print(hashlib.sha256(b"".join(x.numpy().tobytes() for x in bits)).hexdigest())
"""


def patches(num, *shape):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=generator)


def small_model(name, **options):
    torch.manual_seed(0)
    return build_model(name, **{**SMALL[name], **options})


def predicted(model, images, precision="exact"):
    model.eval()
    with torch.inference_mode(), arithmetic(precision, "cpu"):
        return model(images)


def gradients(model, images, precision, threads):
    """The bits of the losses and of every gradient of one training pass with keyed dropout."""
    torch.set_num_threads(threads)
    model.train()
    model.zero_grad()
    labels = torch.arange(len(images)) % 2
    words = np.arange(len(images), dtype=np.uint64)
    with arithmetic(precision, "cpu"), keyed_dropout(words, "cpu"):
        losses = F.cross_entropy(model(images), labels, reduction="none", label_smoothing=0.1)
        (losses.sum() / 7).backward()
    bits = [losses.detach(), *(p.grad for p in model.parameters())]
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in bits)).hexdigest()


@pytest.mark.parametrize("name", SMALL)
def test_a_model_gives_the_logits_of_native_float32_to_five_digits(name):
    model = small_model(name)
    images = patches(16, *model.input_shape)
    torch.testing.assert_close(
        predicted(model, images), predicted(model, images, "fp32"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", SMALL)
def test_a_patch_has_the_same_logits_in_any_batch_and_at_any_place(name):
    model = small_model(name)
    images = patches(64, *model.input_shape)
    whole = predicted(model, images)
    alone = torch.cat([predicted(model, images[i : i + 1]) for i in range(0, 64, 8)])
    assert torch.equal(whole[::8], alone)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(predicted(model, images[order]), whole[order])
    assert torch.equal(torch.cat([predicted(model, part) for part in images.split(7)]), whole)


def test_natively_the_logits_of_a_patch_do_depend_on_its_batch():
    model = small_model("cnn", average_orientations=False)
    images = patches(64, *model.input_shape)
    whole = predicted(model, images, "fp32")
    alone = torch.cat([predicted(model, images[i : i + 1], "fp32") for i in range(64)])
    assert not torch.equal(whole, alone)


@pytest.mark.parametrize("name", SMALL)
def test_one_two_and_four_threads_give_one_training_pass(name):
    before = torch.get_num_threads()
    model = small_model(name)
    images = patches(16, *model.input_shape)
    try:
        digests = {gradients(model, images, "exact", threads) for threads in (1, 2, 4)}
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_natively_the_threads_do_change_a_training_pass():
    before = torch.get_num_threads()
    model = small_model("cnn", input_shape=(3, 96, 96))
    images = patches(16, *model.input_shape)
    try:
        digests = {gradients(model, images, "fp32", threads) for threads in (1, 2, 4)}
    finally:
        torch.set_num_threads(before)
    assert len(digests) > 1


@pytest.mark.slow  # whole processes, natively too
def test_another_instruction_set_and_other_libraries_give_the_same_bits_where_native_does_not():
    others = {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    }
    digests = []
    for settings, threads in (({}, "1"), (others, "2")):
        command = [sys.executable, "-c", PROGRAM, threads]
        environment = {**os.environ, **settings}
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        digests.append(done.stdout.split())
    (exact, native), (exact_elsewhere, native_elsewhere) = digests
    assert exact == exact_elsewhere
    assert native != native_elsewhere


def test_a_user_s_own_model_of_such_parts_trains_with_a_broadcast_scale():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4).view(4, 1, 1))
            self.conv = nn.Conv2d(3, 4, 5, padding=2)
            self.head = nn.Linear(4, 2)
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            x = F.leaky_relu(self.conv(x.float() / 255)) * self.scale
            return self.head(self.norm(x.flatten(2).sum(dim=-1)))

    torch.manual_seed(0)
    model = Scaled()
    images = patches(8, 3, 20, 20)
    before = torch.get_num_threads()
    digests = {gradients(model, images, "exact", threads) for threads in (1, 2)}
    torch.set_num_threads(before)
    assert len(digests) == 1


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda x: torch.add(x, x, alpha=0.5), "alpha=0.5"),
        (lambda x: x.sub(x, alpha=2), "alpha=2"),
        (lambda x: torch.addcmul(x, x, x), "addcmul"),
        (lambda x: torch.lerp(x, x, 0.5), "lerp"),
        (torch.sigmoid, "sigmoid"),
        (lambda x: x.softmax(dim=1), "softmax"),
        (lambda x: x**2, "pow"),
        (lambda x: x.exp(), "exp"),
        (lambda x: F.batch_norm(x, None, None, training=True), "batch_norm"),
        (lambda x: x.std(), "std"),
        (lambda x: torch.einsum("bchw->c", x), "einsum"),
        (lambda x: F.interpolate(x, scale_factor=2), "interpolate"),
        (lambda x: F.max_pool2d(x, 3, 1), "max_pool2d"),
        (lambda x: torch.rand_like(x), "rand_like"),
        (lambda x: x.bernoulli(), "bernoulli"),
        (lambda x: torch.randn(3), "randn"),
        (lambda x: x.div(2, rounding_mode="floor"), "rounding_mode=floor"),
        (lambda x: F.dropout(x, 0.5), "keyed_dropout"),
        (lambda x: F.pad(x, (1, 1), mode="reflect"), "reflect"),
        (lambda x: x[[0, 0]], "indexing by a list"),
        (
            lambda x: F.cross_entropy(x.mean((2, 3)), torch.zeros(2).long(), torch.ones(4)),
            "class w",
        ),
    ],
)
def test_what_is_not_known_to_be_exact_is_refused_by_its_name(call, named):
    x = torch.rand(2, 4, 5, 5).requires_grad_()
    with arithmetic("exact", "cpu"), pytest.raises(ConfigError, match=named):
        call(x)


def test_dropout_that_drops_nothing_passes():
    x = torch.rand(2, 3)
    with arithmetic("exact", "cpu"):
        assert F.dropout(x, 0.5, training=False) is x
        assert F.dropout(x, 0.0) is x


def test_outside_of_the_context_torch_computes_as_ever():
    with arithmetic("exact", "cpu"):
        pass
    assert torch.rand(2).sigmoid().shape == (2,)


def test_the_precisions_are_known_by_name():
    x = torch.ones(4, 4)
    dtypes = []
    for precision in PRECISIONS:
        with arithmetic(precision, "cpu"):
            dtypes.append((x @ x).dtype)
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32]
    with pytest.raises(ValueError, match=r"fp8.*allowed: fp32, bf16, exact"):
        arithmetic("fp8", "cpu")
