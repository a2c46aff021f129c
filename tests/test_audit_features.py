"""The learned features: the same for every patch whatever its block, and about what they claim."""

import numpy as np
import pytest

from ml_core.audit.measures.block import Block
from ml_core.audit.measures.features import NUM_FEATURES, fit_features
from ml_core.data.layout import load_labels, split_paths
from ml_core.data.patch_file import PatchFile, evenly_spaced


@pytest.fixture
def patches():
    return np.random.default_rng(0).integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)


def measure(bank, patches):
    return bank.measure(Block(patches))["features"]


def test_a_patch_has_the_same_features_in_any_block(patches):
    bank = fit_features(patches, seed=0)
    features = measure(bank, patches)
    assert features.shape == (40, NUM_FEATURES) and features.dtype == np.float32
    apart = np.concatenate([measure(bank, patches[:1]), measure(bank, patches[1:33])])
    assert np.allclose(features[:33], apart, atol=1e-3)


def test_the_fit_depends_on_its_seed_alone(patches):
    again = fit_features(patches, seed=3)
    assert np.array_equal(fit_features(patches, seed=3).filters, again.filters)
    assert not np.array_equal(fit_features(patches, seed=4).filters, again.filters)


def test_the_first_24_features_are_of_the_centre_alone(patches):
    bank = fit_features(patches, seed=0)
    other = patches.copy()
    other[:, 32:64, 32:64] = 255 - other[:, 32:64, 32:64]
    inside = measure(bank, other)[:, :24] != measure(bank, patches)[:, :24]
    assert inside[:, :3].all()
    other = 255 - patches
    other[:, 32:64, 32:64] = patches[:, 32:64, 32:64]
    assert np.array_equal(measure(bank, other)[:, :24], measure(bank, patches)[:, :24])


def test_colour_features_are_those_of_the_pixels():
    rng = np.random.default_rng(1)
    # constant in blocks of 2 x 2, so that half the resolution loses nothing
    patches = rng.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    centre = patches[:, 32:64:2, 32:64:2].reshape(3, -1, 3).astype(float)
    features = measure(fit_features(patches, seed=0), patches)
    assert np.allclose(features[:, :3], centre.mean(axis=1), atol=1e-3)
    assert np.allclose(features[:, 3:6], centre.std(axis=1), atol=1e-3)
    red_green = [np.cov(each.T, bias=True)[0, 1] for each in centre]
    assert np.allclose(features[:, 6], red_green, atol=0.1)
    medians = features[:, 9:24].reshape(3, 3, 5)[:, :, 2]
    assert np.allclose(medians, np.sort(centre, axis=1)[:, 127], atol=1e-3)


def test_filters_give_uncorrelated_answers_of_unit_size(real_pcam):
    file = PatchFile(split_paths(real_pcam, "train").x)
    patches = file.read(evenly_spaced(len(file), 1000))
    bank = fit_features(patches, seed=0)
    windows = patches.reshape(1000, 12, 8, 12, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    small = windows.reshape(-1, 4, 2, 4, 2, 3).mean(axis=(2, 4)).reshape(-1, 48)
    covariance = np.cov((small @ bank.filters + bank.offset).T)
    assert np.allclose(np.diag(covariance)[-16:], 1, atol=0.1)
    assert np.abs(covariance - np.diag(np.diag(covariance)))[-16:, -16:].max() < 0.1


def test_features_tell_tumour_from_normal_better_than_colours_do(real_pcam):
    from ml_core.audit.checks.label_errors import rank_label_errors

    paths = split_paths(real_pcam, "train")
    rows = evenly_spaced(20_000, 1500)
    patches, labels = PatchFile(paths.x).read(rows), load_labels(paths.y)[rows]
    features = measure(fit_features(patches, seed=0), patches)
    colours = rank_label_errors(features[:, :48], labels).auc
    assert rank_label_errors(features, labels).auc > max(colours + 0.005, 0.85)


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (100, 96), (224, 224)])
def test_patches_of_any_size_are_measured_around_their_centre(size):
    patches = np.full((2, *size, 3), 200, np.uint8)
    top, left = size[0] // 2 - 16, size[1] // 2 - 16
    patches[:, top : top + 32, left : left + 32] = (10, 20, 30)
    features = measure(fit_features(patches, seed=0), patches)
    assert features.shape == (2, NUM_FEATURES)
    assert np.allclose(features[:, :6], [10, 20, 30, 0, 0, 0], atol=1e-3)


@pytest.mark.parametrize("num", [0, 1, 5])
def test_a_sample_without_contrast_or_patches_gives_finite_features(num, patches):
    bank = fit_features(np.zeros((num, 96, 96, 3), np.uint8), seed=0)
    assert np.isfinite(measure(bank, patches)).all()
