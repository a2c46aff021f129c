"""Dropout by patch: a mask hangs on the patch's word, the layer and the unit, nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ml_core.errors import ConfigError
from ml_core.models import build_model
from ml_core.numerics.keyed_dropout import dropout_words, keyed_dropout

NUM = 64


@pytest.fixture
def words():
    return dropout_words(seed=1, epoch=2, num_rows=NUM)


def dropped(words, rate=0.5, num_units=1000, calls=1):
    """Return the masks (B, num_units) of the last of `calls` dropouts of a pass."""
    with keyed_dropout(words, "cpu"):
        for _ in range(calls):
            out = F.dropout(torch.ones(len(words), num_units), rate, training=True)
    return out > 0


# ---- what a mask depends on --------------------------------------------------------------------


def test_the_batch_a_patch_comes_in_changes_nothing(words):
    whole = dropped(words)
    order = np.random.default_rng(0).permutation(NUM)
    for size in (1, 7, NUM):
        parts = [dropped(words[part]) for part in np.array_split(order, -(-NUM // size))]
        assert torch.equal(torch.cat(parts), whole[torch.from_numpy(order)])


def test_torch_s_own_dropout_does_depend_on_the_batch(words):
    def native(rows):
        torch.manual_seed(0)
        return F.dropout(torch.ones(len(rows), 1000), 0.5, training=True) > 0

    assert not torch.equal(native(words[5:6]), native(words)[5:6])


def test_the_state_of_torch_s_generator_is_neither_read_nor_changed(words):
    torch.manual_seed(0)
    first, state = dropped(words), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(dropped(words), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 3}])
def test_seed_and_epoch_each_change_the_words(words, change):
    other = dropout_words(**{"seed": 1, "epoch": 2, "num_rows": NUM, **change})
    assert not np.isin(other, words).any()


def test_more_rows_leave_the_first_as_they_are(words):
    assert np.array_equal(dropout_words(1, 2, 2 * NUM)[:NUM], words)


def test_each_dropout_of_a_pass_has_a_mask_of_its_own_and_each_pass_begins_anew(words):
    first, second = dropped(words), dropped(words, calls=2)
    assert (first != second).float().mean() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(dropped(words, calls=2), second)


def test_threads_change_nothing(words):
    before = torch.get_num_threads()
    one = dropped(words, num_units=50_000)
    try:
        torch.set_num_threads(4)
        assert torch.equal(dropped(words, num_units=50_000), one)
    finally:
        torch.set_num_threads(before)


def test_the_hash_is_splitmix64_s_in_whole_numbers(words):
    def mixed(word):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            word = ((word ^ (word >> shift)) * factor) % 2**64
        return word ^ (word >> 31)

    gamma, found = 0x9E3779B97F4A7C15, dropped(words, rate=0.25, calls=3)
    for row, unit in ((0, 0), (1, 1), (5, 17), (63, 999), *((7, unit) for unit in range(100))):
        key = mixed((int(words[row]) + 3 * gamma) % 2**64)
        drawn = mixed((key + (unit + 1) * gamma) % 2**64)
        # the comparison is of signed numbers: its quarter begins at the most negative one
        assert bool(found[row, unit]) == ((drawn + 2**63) % 2**64 >= 2**62)


# ---- that it is dropout ------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_the_share_that_is_dropped_is_the_rate(words, rate):
    kept = dropped(words, rate, num_units=10_000).double()
    error = np.sqrt(rate * (1 - rate) / kept.numel())
    assert kept.mean().item() == pytest.approx(1 - rate, abs=4 * error)


def test_units_and_patches_are_dropped_independently(words):
    kept = dropped(words, num_units=4000).double() - 0.5
    among_patches = kept @ kept.T / kept.shape[1] * 4
    among_units = kept.T @ kept / kept.shape[0] * 4
    for correlation, num in ((among_patches, 4000), (among_units, NUM)):
        off_diagonal = correlation - torch.eye(len(correlation))
        assert off_diagonal.abs().max() < 6.5 / np.sqrt(num)
        assert off_diagonal.std() == pytest.approx(1 / np.sqrt(num), rel=0.1)


def test_what_is_kept_is_scaled_and_its_gradient_as_well(words):
    x = torch.rand(NUM, 100, requires_grad=True)
    with keyed_dropout(words, "cpu"):
        y = F.dropout(x, 0.2, training=True)
    mask = (y > 0).float() * 1.25
    assert torch.equal(y, x * mask)
    y.sum().backward()
    assert torch.equal(x.grad, mask)


def test_all_or_nothing(words):
    x = torch.ones(NUM, 10)
    with keyed_dropout(words, "cpu"):
        assert torch.equal(F.dropout(x, 0.0, training=True), x)
        assert torch.equal(F.dropout(x, 1.0, training=True), torch.zeros_like(x))
        assert torch.equal(F.dropout(x, 0.5, training=False), x)


def test_half_precision_stays_half_precision(words):
    with keyed_dropout(words, "cpu"):
        y = F.dropout(torch.ones(NUM, 10, dtype=torch.bfloat16), 0.2, training=True)
    assert y.dtype == torch.bfloat16 and set(y.unique().tolist()) == {0.0, 1.25}


# ---- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_a_model_s_own_layers_draw_from_the_words(words, name):
    options = {"hidden_units": [16, 8]} if name == "mlp" else {"widths": [8]}
    model = build_model(name, (3, 24, 24), dropout_rate=0.5, **options).train()
    images = torch.rand(8, 3, 24, 24) * 255

    def logits(rows):
        with keyed_dropout(words[rows], "cpu"), torch.no_grad():
            return model(images[rows])

    torch.manual_seed(0)
    whole = logits(slice(None, 8))
    assert torch.allclose(torch.cat([logits(slice(i, i + 1)) for i in range(8)]), whole, atol=1e-5)
    model.eval()
    assert not torch.allclose(logits(slice(None, 8)), whole, atol=1e-3)


@pytest.mark.parametrize("layer", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_channelwise_dropout_drops_whole_channels(words, layer):
    shape = (NUM, 40) + (3,) * int(layer.__name__[-2])
    with keyed_dropout(words, "cpu"):
        y = layer(0.5)(torch.ones(shape)).flatten(2)
    assert torch.equal(y.amin(2), y.amax(2))
    assert (y[..., 0] > 0).float().mean() == pytest.approx(0.5, abs=0.05)


def test_in_place_layers_work_as_well(words):
    with keyed_dropout(words, "cpu"):
        y = nn.Dropout(0.5, inplace=True)(torch.ones(NUM, 100))
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_a_layer_whose_input_does_not_begin_with_the_patches_is_refused(words):
    message = r"shape \(10, 64\) in a batch of 64 patches; its first dimension must be the patches"
    with keyed_dropout(words, "cpu"), pytest.raises(ConfigError, match=message):
        F.dropout(torch.ones(10, NUM), 0.5, training=True)


def test_other_random_functions_are_left_as_they_are(words):
    torch.manual_seed(0)
    expected = torch.rand(5)
    torch.manual_seed(0)
    with keyed_dropout(words, "cpu"):
        assert torch.equal(torch.rand(5), expected)


def test_outside_dropout_is_torch_s_again(words):
    dropped(words)
    torch.manual_seed(0)
    first = F.dropout(torch.ones(1000), 0.5)
    assert not torch.equal(first, F.dropout(torch.ones(1000), 0.5))
