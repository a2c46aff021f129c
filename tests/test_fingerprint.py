"""Fingerprints: the same for a patch in any orientation and brightness, unlike another's."""

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from ml_core.audit.measures.block import LUMA, Block
from ml_core.audit.measures.fingerprint import measure_fingerprint, mirror_signs
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile

ORIENTATIONS = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]


def random_patches(num=20, height=96, width=96):
    return np.random.default_rng(0).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def orient(patches, turns, mirrored):
    turned = np.rot90(patches, turns, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if mirrored else turned)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (32, 32), (33, 120)])
def test_a_descriptor_is_the_low_corner_of_the_dct_without_its_mean(height, width):
    patches = random_patches(5, height, width)
    luma = patches.astype(np.float64) @ LUMA.astype(np.float64)
    wanted = dctn(luma, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(5, 64)
    wanted[:, 0] = 0
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = measure_fingerprint(Block(patches))["descriptors"]
    assert found.dtype == np.float32 and found.shape == (5, 64)
    assert np.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(("turns", "mirrored"), ORIENTATIONS)
def test_all_orientations_of_a_patch_share_its_hash(turns, mirrored):
    patches = random_patches()
    hashes = measure_fingerprint(Block(patches))["perceptual_hash"]
    assert hashes.dtype == np.uint64 and len(set(hashes.tolist())) == len(patches)
    turned = measure_fingerprint(Block(orient(patches, turns, mirrored)))["perceptual_hash"]
    assert turned.tolist() == hashes.tolist()


def test_patches_that_are_not_square_share_their_hash_where_orientations_exist():
    patches = random_patches(height=64)
    hashes = measure_fingerprint(Block(patches))["perceptual_hash"]
    for turns, mirrored in ((0, True), (2, False), (2, True)):
        turned = measure_fingerprint(Block(orient(patches, turns, mirrored)))["perceptual_hash"]
        assert turned.tolist() == hashes.tolist()


def test_patches_that_are_not_square_have_no_quarter_turns():
    """The patch whose spectrum has its axes swapped is another patch, not this one turned."""
    corner = np.random.default_rng(0).choice([-50.0, 50.0], (8, 8))
    hashes = []
    for spectrum in (corner, corner.T):
        padded = np.zeros((1, 64, 96))
        padded[0, :8, :8] = spectrum
        luma = 128 + idctn(padded, axes=(1, 2), norm="ortho")
        patch = np.rint(luma[..., None]).repeat(3, -1).astype(np.uint8)
        hashes.append(measure_fingerprint(Block(patch))["perceptual_hash"][0])
    assert hashes[0] != hashes[1]


def test_mirroring_a_patch_changes_the_signs_that_are_said():
    patches = random_patches()
    plain, *others = (
        measure_fingerprint(Block(np.ascontiguousarray(x)))["descriptors"].reshape(-1, 8, 8)
        for x in (patches, patches[:, :, ::-1], patches[:, ::-1], patches[:, ::-1, ::-1])
    )
    for sign, mirrored in zip(mirror_signs()[1:], others, strict=True):
        assert np.allclose(mirrored, plain * sign, atol=1e-5)


def test_brightness_and_contrast_do_not_count():
    patches = random_patches() // 2
    plain = measure_fingerprint(Block(patches))
    changed = measure_fingerprint(Block(patches * 2 + 1))
    assert np.allclose(plain["descriptors"], changed["descriptors"], atol=1e-5)
    assert np.array_equal(plain["perceptual_hash"], changed["perceptual_hash"])


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_flat_patch_has_no_descriptor(level):
    found = measure_fingerprint(Block(np.full((3, 96, 96, 3), level, np.uint8)))
    assert not found["descriptors"].any() and not found["perceptual_hash"].any()


def test_an_empty_block_is_measured():
    found = measure_fingerprint(Block(np.empty((0, 96, 96, 3), np.uint8)))
    assert found["descriptors"].shape == (0, 64) and found["perceptual_hash"].shape == (0,)


def test_the_fingerprint_of_a_patch_does_not_depend_on_its_block():
    patches = random_patches()
    together = measure_fingerprint(Block(patches))["descriptors"]
    alone = [measure_fingerprint(Block(patches[i : i + 1]))["descriptors"][0] for i in range(20)]
    assert np.allclose(together, alone, atol=1e-6)


def test_real_patches_are_told_apart(real_pcam):
    patches = PatchFile(split_paths(real_pcam, "test").x).read(np.arange(500))
    patches = np.unique(patches, axis=0)
    found = measure_fingerprint(Block(patches))
    textured = Block(patches).luma.std(axis=(1, 2)) >= 10
    cosines = found["descriptors"][textured] @ found["descriptors"][textured].T
    np.fill_diagonal(cosines, 0)
    assert cosines.max() < 0.94  # from where on pixels are compared
    hashes = found["perceptual_hash"][textured]
    assert len(np.unique(hashes)) == len(hashes)
