"""Augmentation: what is done to a patch hangs on (seed, epoch, index) and on nothing else."""

import math

import numpy as np
import pytest
import torch

from ml_core.data.augment import (
    NUM_DIHEDRAL,
    Augmenter,
    apply_dihedral,
    augment,
    jitter_stains,
    stain_matrix,
)
from ml_core.reproducibility import Stream, philox_words

NUM = 32


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (NUM, 96, 96, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.fixture
def words():
    return philox_words(1, 0, Stream.AUGMENT, NUM)


@pytest.mark.parametrize("stain_jitter", [0.0, 0.1])
def test_the_batch_a_patch_comes_in_changes_nothing(images, stain_jitter):
    augmenter = Augmenter(1, NUM, stain_jitter=stain_jitter)
    augmenter.set_epoch(3)
    index = torch.arange(NUM)
    whole = augmenter(images, index)
    order = torch.from_numpy(np.random.default_rng(1).permutation(NUM))
    for size in (1, 5, NUM):
        pieces = [augmenter(images[part], part) for part in order.split(size)]
        assert torch.equal(torch.cat(pieces), whole[order])


def test_seed_epoch_and_index_each_change_it(images):
    same = images[:1].expand(NUM, -1, -1, -1)

    def run(seed, epoch, index):
        augmenter = Augmenter(seed, 2 * NUM)
        augmenter.set_epoch(epoch)
        return augmenter(same, index)

    base = run(1, 1, torch.arange(NUM))
    assert torch.equal(base, run(1, 1, torch.arange(NUM)))
    assert not torch.equal(base, run(2, 1, torch.arange(NUM)))
    assert not torch.equal(base, run(1, 2, torch.arange(NUM)))
    assert not torch.equal(base, run(1, 1, torch.arange(NUM) + NUM))


def test_the_codes_are_the_eight_symmetries_of_the_square(images):
    one = images[:1]
    turned = [apply_dihedral(one, np.array([code])) for code in range(NUM_DIHEDRAL)]
    assert torch.equal(turned[0], one)
    assert torch.equal(turned[1], one.flip(3))
    assert torch.equal(turned[2], one.flip(2))
    assert torch.equal(turned[4], one.transpose(2, 3))
    expected = {
        torch.rot90(image, quarter, (2, 3)).contiguous().numpy().tobytes()
        for image in (one, one.flip(3))
        for quarter in range(4)
    }
    assert {image.contiguous().numpy().tobytes() for image in turned} == expected


def test_every_symmetry_is_about_equally_frequent():
    words = philox_words(0, 0, Stream.AUGMENT, 8000)
    column = torch.arange(96, dtype=torch.uint8).expand(96, 96)
    marked = (column + 3 * column.T).expand(8000, 1, 96, 96)[:, :, ::95, ::95]  # the 4 corners
    corners = augment(marked.expand(-1, 3, -1, -1), words)[:, 0].reshape(8000, 4)
    counts = np.unique(corners.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 8
    assert counts.min() > 850 and counts.max() < 1150


def test_both_ways_of_turning_agree_for_every_dtype_and_memory_format(images):
    codes = np.arange(NUM) % NUM_DIHEDRAL
    planar = apply_dihedral(images.contiguous(), codes)
    assert torch.equal(apply_dihedral(images, codes), planar)
    assert torch.equal(apply_dihedral(images.float(), codes), planar.float())


@pytest.mark.parametrize("stain_jitter", [0.0, 0.1])
def test_dtype_shape_and_memory_format_are_kept(images, words, stain_jitter):
    for layout in (torch.channels_last, torch.contiguous_format):
        given = images.contiguous(memory_format=layout)
        done = augment(given, words, stain_jitter=stain_jitter)
        assert done.shape == given.shape and done.is_contiguous(memory_format=layout)
        assert done.dtype == (torch.float32 if stain_jitter else torch.uint8)
        assert not torch.equal(done, given)


def test_augmenting_leaves_the_given_images_alone(images, words):
    for given in (images, images.float(), images.contiguous()):
        before = given.clone()
        augment(given, words, dihedral=False, stain_jitter=0.1)
        augment(given, words)
        assert torch.equal(given, before)


def test_nothing_asked_for_is_nothing_done(images, words):
    assert torch.equal(augment(images, words, dihedral=False), images)


def test_a_jitter_of_almost_nothing_returns_the_image(images, words):
    done = jitter_stains(images, words[:, 1:], 1e-7)
    torch.testing.assert_close(done, images.float(), rtol=0, atol=0.01)


def test_stain_jitter_gives_each_patch_one_change_of_colour(words):
    plain = torch.tensor([150.0, 90.0, 160.0]).reshape(1, 3, 1, 1).expand(NUM, 3, 8, 8)
    done = augment(plain, words, dihedral=False, stain_jitter=0.2)
    assert torch.allclose(done.amax((2, 3)), done.amin((2, 3)))  # a plain patch stays plain
    assert len(torch.unique(done[:, :, 0, 0], dim=0)) == NUM
    assert 1 < (done - plain).abs().mean() < 30


def test_stain_jitter_stays_within_0_and_255(images, words):
    extremes = (images > 127).to(torch.uint8) * 255
    done = augment(extremes, words, stain_jitter=0.5)
    assert done.min() == 0 and done.max() == 255


def test_scaling_the_stains_scales_the_optical_density():
    # words that mean: every stain 1.5 times as strong, no shift
    word = np.uint64((3 * 2**30) << 32 | 2**31)
    words = np.full((1, 3), word, dtype=np.uint64)
    given = torch.tensor([200.0, 120.0, 180.0]).reshape(1, 3, 1, 1)
    done = jitter_stains(given, words, 1.0)
    expected = 256 * ((given + 1) / 256) ** 1.5 - 1
    torch.testing.assert_close(done, expected, rtol=1e-4, atol=1e-2)


def test_stain_jitter_is_the_mixing_of_densities_worked_out_in_float64(images, words):
    found = jitter_stains(images, words[:, 1:], 0.3).permute(0, 2, 3, 1).double().numpy()
    scales = 1 + 0.3 * ((words[:, 1:] >> np.uint64(32)) / 2**31 - 1)
    shifts = 0.3 * ((words[:, 1:] & np.uint64(0xFFFFFFFF)) / 2**31 - 1)
    density = -np.log((images.permute(0, 2, 3, 1).numpy() + 1.0) / 256)
    amounts = density @ np.linalg.inv(stain_matrix())
    mixed = (amounts * scales[:, None, None] + shifts[:, None, None]) @ stain_matrix()
    expected = (256 * np.exp(-mixed) - 1).clip(0, 255)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.006)


def test_bytes_and_the_same_numbers_as_floats_are_jittered_to_the_same_bits(images, words):
    for strength in (0.1, 1.0):
        looked_up = jitter_stains(images, words[:, 1:], strength)
        assert torch.equal(jitter_stains(images.float(), words[:, 1:], strength), looked_up)
        assert torch.equal(jitter_stains(images.contiguous(), words[:, 1:], strength), looked_up)


def test_stain_jitter_does_not_hide_a_pixel_that_has_no_density(images, words):
    given = images.float()
    given[3, 1, 5, 7], given[4, 0, 0, 0], given[4, 0, 0, 1] = math.nan, math.inf, -2
    bad = ~jitter_stains(given, words[:, 1:], 0.1).isfinite()
    assert bad.nonzero().tolist() == [[3, 1, 5, 7], [4, 0, 0, 0], [4, 0, 0, 1]]


def test_the_stains_are_orthogonal_to_their_residual_and_of_length_one():
    stains = stain_matrix()
    np.testing.assert_allclose((stains**2).sum(axis=1), 1)
    np.testing.assert_allclose(stains[2] @ stains[:2].T, 0, atol=1e-15)
    assert (stains[:2] > 0).all()
