"""The name of a state: what must change it, what must not, and how a stranger recomputes it."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ml_core.numerics.state_hash import (
    digest_state,
    state_hash,
    tensor_digests,
    training_state,
)


def two_tensors():
    torch.manual_seed(3)
    return {"stem.weight": torch.randn(4, 3, 5, 5), "head.bias": torch.tensor([0.5, -2.0])}


def stepped(steps, momentum=0.9):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    for _ in range(steps):
        model(torch.ones(6, 3) * torch.arange(6.0)[:, None]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_the_digest_is_what_its_definition_says_with_nothing_but_sha256():
    values = np.array([[1.0, -2.0, 3.5]], dtype="<f4")
    header = json.dumps(["w", "float32", [1, 3]]).encode() + b"\n"
    of_tensor = hashlib.sha256(header + values.tobytes())
    digest = digest_state({"w": torch.from_numpy(values)})
    assert digest.tensors == {"w": of_tensor.hexdigest()[:16]}
    assert digest.state == hashlib.sha256(of_tensor.digest()).hexdigest()


def test_a_committed_digest_holds_on_every_machine():
    tensors = {
        "b": torch.arange(6, dtype=torch.int64).reshape(2, 3),
        "a": torch.tensor([1.5, -0.0]),
        "half": torch.tensor([1.0], dtype=torch.bfloat16),
        "step": torch.tensor(7.0),
        "mask": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }
    # computed with hashlib and struct alone
    expected = "5356420f5f98fa1c1c4ea90f2e82332653b29994df94753012510db73e92f5a2"
    assert state_hash(tensors) == expected


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (3, 2, 4, 4), (1, 1, 2, 2)])
def test_one_flipped_bit_anywhere_is_another_state_and_names_its_tensor(place):
    before, after = two_tensors(), two_tensors()
    after["stem.weight"].view(torch.int32)[place] ^= 1
    assert state_hash(before) != state_hash(after)
    old, new = tensor_digests(before), tensor_digests(after)
    assert [name for name in old if old[name] != new[name]] == ["stem.weight"]


def test_names_shapes_types_and_signs_of_zero_are_part_of_the_state():
    zeros = torch.zeros(2, 3)
    others = [
        {"v": zeros}, {"w": zeros.T.contiguous()}, {"w": -zeros}, {"w": zeros.int()},
        {"w": zeros[:1]}, {"w": zeros, "x": zeros}, {},
    ]  # fmt: skip
    hashes = [state_hash(each) for each in [{"w": zeros}, *others]]
    assert len(set(hashes)) == len(hashes)


def test_swapping_two_tensors_is_another_state():
    a, b = torch.tensor([1.0]), torch.tensor([2.0])
    assert state_hash({"a": a, "b": b}) != state_hash({"a": b, "b": a})


def test_memory_format_order_of_names_and_gradients_are_not_part_of_the_state():
    tensors = two_tensors()
    turned = dict(reversed(tensors.items()))
    turned["stem.weight"] = (
        tensors["stem.weight"].to(memory_format=torch.channels_last).requires_grad_()
    )
    assert turned["stem.weight"].stride() != tensors["stem.weight"].stride()
    assert state_hash(turned) == state_hash(tensors)


def test_a_view_into_a_larger_tensor_is_hashed_as_its_own_values():
    large = torch.arange(20.0)
    assert state_hash({"w": large[5:9]}) == state_hash({"w": large[5:9].clone()})


def test_the_training_state_is_weights_buffers_and_the_optimizers_own_in_this_order():
    state = training_state(*stepped(2))
    assert list(state) == [
        "model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias",
        "model.1.running_mean", "model.1.running_var", "model.1.num_batches_tracked",
        "model.2.weight", "model.2.bias",
        *(f"optimizer.{name}.momentum_buffer" for name in (
            "0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias",
        )),
    ]  # fmt: skip


def test_the_training_state_shares_memory_with_the_model():
    model, optimizer = stepped(1)
    state = training_state(model, optimizer)
    assert state["model.0.weight"].data_ptr() == model[0].weight.data_ptr()


def test_each_step_and_each_number_of_the_optimizer_changes_the_state():
    hashes = [state_hash(training_state(*stepped(steps))) for steps in (0, 1, 2, 2)]
    assert len(set(hashes)) == 3
    assert hashes[2] == hashes[3]
    model, optimizer = stepped(2)
    optimizer.state[model[2].bias]["momentum_buffer"].view(torch.int32)[0] ^= 1
    assert state_hash(training_state(model, optimizer)) != hashes[2]


def test_numbers_that_are_not_tensors_are_part_of_the_state():
    model, optimizer = stepped(1)
    states = []
    for step in (1, 2, 1.0):
        optimizer.state[model[0].bias]["step"] = step
        states.append(state_hash(training_state(model, optimizer)))
    assert len(set(states)) == 3


def test_another_process_gives_the_same_digest():
    code = (
        "import torch; from ml_core.numerics.state_hash import state_hash;"
        "torch.manual_seed(3);"
        "t = {'stem.weight': torch.randn(4, 3, 5, 5), 'head.bias': torch.tensor([0.5, -2.0])};"
        "print(state_hash(t))"
    )
    environment = {"PYTHONHASHSEED": "7", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == state_hash(two_tensors())
