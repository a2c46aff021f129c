"""The search: every planted copy is found, whatever was done to it, and nothing else."""

import io

import numpy as np
import pytest
from PIL import Image

from ml_core.audit.checks import near_duplicates
from ml_core.audit.checks.near_duplicates import find_near_duplicates
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.fingerprint import measure_fingerprint
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile

NUM, NUM_COPIES = 400, 100


@pytest.fixture(scope="module")
def real_patches(real_pcam):
    """Textured patches of train, no two equal."""
    patches = PatchFile(split_paths(real_pcam, "train").x).read(np.arange(500))
    _, first = np.unique(patches.reshape(len(patches), -1), axis=0, return_index=True)
    patches = patches[np.sort(first)]
    return patches[Block(patches).luma.std(axis=(1, 2)) >= 10][:NUM]


def random_patches(num, size=96, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 220, (num, 12, 12, 1)).repeat(size // 12, 1).repeat(size // 12, 2)
    fine = rng.integers(-40, 40, (num, size // 2, size // 2, 1)).repeat(2, 1).repeat(2, 2)
    return np.clip(coarse + fine + np.zeros(3, int), 0, 255).astype(np.uint8)


def search(patches, candidates=None, **options):
    descriptors = measure_fingerprint(Block(patches))["descriptors"]
    candidates = np.arange(len(patches)) if candidates is None else candidates
    return find_near_duplicates(descriptors, candidates, lambda rows: patches[rows], **options)


def recall(patches, copies):
    """Return the share of copies of the first patches that are found; nothing else may be."""
    found = search(np.concatenate([patches, copies]))
    pairs = {(int(a), int(b)) for a, b in found.pairs}
    wanted = {(i, len(patches) + i) for i in range(len(copies))}
    assert pairs <= wanted and len(pairs) == len(found.pairs)
    return len(pairs) / len(wanted)


def encode(patches, quality):
    def encoded(patch):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(patch)).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([encoded(patch) for patch in patches])


def test_clean_real_patches_hold_no_pair(real_patches):
    assert search(real_patches).pairs.shape == (0, 2)


@pytest.mark.parametrize("quality", [100, 50])
def test_every_orientation_is_found_and_named(real_patches, quality):
    names = set()
    for turns in range(4):
        for mirrored in (False, True):
            if not turns and not mirrored:
                continue
            copies = np.rot90(real_patches[:NUM_COPIES], turns, axes=(1, 2))
            copies = copies[:, :, ::-1] if mirrored else copies
            copies = encode(copies, quality) if quality < 100 else copies
            assert recall(real_patches, copies) >= 0.99
            found = search(np.concatenate([real_patches[:20], copies[:20]]))
            (name,) = set(found.relations)
            names.add(name)
            if not mirrored:
                assert name == f"turned by {90 * turns} degrees"
    assert len(names) == 7


@pytest.mark.parametrize("quality", [50, 90])
def test_patches_encoded_again_are_found(real_patches, quality):
    assert recall(real_patches, encode(real_patches[:NUM_COPIES], quality)) >= 0.99


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_patches_moved_by_a_pixel_are_found(real_patches, down, right):
    if down == right == 0:
        return
    cut = real_patches[:, 1 + down : 95 + down, 1 + right : 95 + right]
    patches = np.concatenate([real_patches[:, 1:-1, 1:-1], cut[:NUM_COPIES]])
    found = search(patches)
    wanted = {(i, NUM + i) for i in range(NUM_COPIES)}
    assert {(int(a), int(b)) for a, b in found.pairs} <= wanted
    assert len(found.pairs) >= 0.95 * NUM_COPIES
    assert set(found.relations) == {f"moved by {-down} down and {-right} right"}


@pytest.mark.parametrize("factor", [0.9, 1.05])
def test_darker_and_brighter_patches_are_found(real_patches, factor):
    copies = np.clip(np.rint(real_patches[:NUM_COPIES] * factor), 0, 255).astype(np.uint8)
    assert recall(real_patches, copies) >= 0.98


def test_patches_that_are_not_square_are_found_mirrored_but_never_turned():
    patches = random_patches(30)[:, :64]
    copies = np.concatenate([patches[:10, ::-1], patches[10:20, :, ::-1]])
    found = search(np.concatenate([patches, copies]))
    assert sorted(map(tuple, found.pairs.tolist())) == [(i, 30 + i) for i in range(20)]
    assert set(found.relations) == {"mirrored top to bottom", "mirrored left to right"}


def test_small_patches_are_found():
    patches = random_patches(30, size=36)
    copies = np.rot90(patches[:10], axes=(1, 2))
    found = search(np.concatenate([patches, copies]))
    assert sorted(map(tuple, found.pairs.tolist())) == [(i, 30 + i) for i in range(10)]


def test_patches_that_are_no_candidates_are_left_alone():
    patches = random_patches(20)
    patches[5], patches[6] = patches[3, ::-1], patches[4, ::-1]
    asked = []
    candidates = np.setdiff1d(np.arange(20), [6])

    def read(rows):
        asked.extend(rows.tolist())
        return patches[rows]

    descriptors = measure_fingerprint(Block(patches))["descriptors"]
    found = find_near_duplicates(descriptors, candidates, read)
    assert found.pairs.tolist() == [[3, 5]] and set(asked) <= {0, 3, 5}


@pytest.mark.parametrize("num", [0, 1])
def test_too_few_patches_are_no_pairs_and_not_read(num):
    descriptors = np.zeros((num, 64), np.float32)
    found = find_near_duplicates(descriptors, np.arange(num), lambda rows: 1 / 0)
    assert found.pairs.shape == (0, 2) and found.relations == ()


def test_a_crowd_of_patches_all_alike_costs_little_and_is_counted():
    alike = np.random.default_rng(0).normal(0, 0.003, (20_000, 64)).astype(np.float32)
    alike[:, 1] += 1
    reads = []

    def read(rows):
        reads.append(len(rows))
        return np.zeros((len(rows), 96, 96, 3), np.uint8)

    found = find_near_duplicates(alike, np.arange(len(alike)), read)
    assert found.num_crowded == len(alike) and sum(reads) == 1


def test_patches_outside_a_crowd_are_still_found():
    crowd = np.zeros((5000, 64), np.float32)
    crowd[:, 1] = 1
    patches = random_patches(20)
    patches[9] = patches[4, ::-1]
    descriptors = measure_fingerprint(Block(patches))["descriptors"]
    found = find_near_duplicates(
        np.concatenate([crowd, descriptors]),
        np.arange(5020),
        lambda rows: patches[np.maximum(rows - 5000, 0)],
    )
    assert found.pairs.tolist() == [[5004, 5009]] and found.num_crowded == 5000


def test_patches_with_more_neighbours_than_are_looked_at_are_counted(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_NUM_NEIGHBOURS", 3)
    patches = random_patches(30)
    patches[:6] = patches[0]
    patches[:6, 0, 0, 0] = np.arange(6)
    found = search(patches)
    assert found.num_crowded == 6
    assert set(found.pairs.ravel().tolist()) == set(range(6))


def test_likely_pairs_beyond_the_cap_are_counted():
    patches = random_patches(40)
    patches[20:] = patches[:20, ::-1]
    found = search(patches, max_verified=5)
    assert len(found.pairs) == 5 and found.num_unverified == 15


def test_the_most_alike_come_first(real_patches):
    copies = np.concatenate([encode(real_patches[:20], 50), real_patches[20:40, ::-1]])
    found = search(np.concatenate([real_patches, copies]))
    assert (np.diff(found.correlations) <= 0).all() and found.correlations[0] > 0.999
    assert (found.pairs[:20, 0] >= 20).all()


def test_a_crowd_is_told_by_the_share_of_a_sample_in_a_large_table():
    rng = np.random.default_rng(0)
    crowd = rng.normal(0, 1e-3, (2000, 64)).astype(np.float32)  # 800 of the sample of 2,000
    crowd[:, 1] += 1
    apart = rng.normal(0, 1, (3000, 64)).astype(np.float32)
    reads = []

    def read(rows):
        reads.append(len(rows))
        return np.zeros((len(rows), 96, 96, 3), np.uint8)

    found = find_near_duplicates(np.concatenate([crowd, apart]), np.arange(5000), read)
    assert found.num_crowded == 2000 and sum(reads) == 1
