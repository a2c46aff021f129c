"""Patches that look alike and were flipped together are found among real ones."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from ml_core.audit.checks.disagreeing_groups import check_disagreeing_groups, scan_balls
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.features import fit_features
from ml_core.data.layout import load_labels, split_paths
from ml_core.data.patch_file import PatchFile, evenly_spaced


@pytest.fixture(scope="module")
def real(real_pcam):
    """The table of 5,000 real patches of train, and their features."""
    paths = split_paths(real_pcam, "train")
    file = PatchFile(paths.x)
    rows = evenly_spaced(len(file), 5000)
    levels = file.read(rows)
    bank = fit_features(levels[::2], seed=0)
    features = [bank.measure(Block(levels[i : i + 32]))["features"] for i in range(0, 5000, 32)]
    patches = pd.DataFrame({"split": "train", "index": rows, "label": load_labels(paths.y)[rows]})
    patches["content_hash"] = [hashlib.sha256(each).hexdigest() for each in levels]
    return patches, np.concatenate(features)


def pure_centres(patches, features, num, size):
    """Return balls of `size` patches of one label where hardly any other label is around."""
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    labels = patches["label"].to_numpy()
    balls = []
    for centre in np.random.default_rng(7).permutation(len(patches)):
        nearest = np.argsort(((scaled - scaled[centre]) ** 2).sum(axis=1), kind="stable")
        own = labels[nearest[: 5 * size]] == labels[centre]
        repeats = patches["content_hash"].iloc[nearest[:size]].duplicated()
        if own.mean() > 0.93 and not repeats.any():
            balls.append(nearest[:size][own[:size]])
        if len(balls) == num:
            return balls
    raise AssertionError("the real patches have no pure surroundings")


@pytest.mark.parametrize("size", [40, 100])
def test_a_flipped_ball_is_found_with_hardly_another_patch(real, size):
    patches, features = real
    for ball in pure_centres(patches, features, num=2, size=size):
        labels = patches["label"].to_numpy().copy()
        labels[ball] = 1 - labels[ball]
        (finding,) = check_disagreeing_groups(patches.assign(label=labels), features)
        assert (finding.id, finding.severity) == ("disagreeing-groups", "warning")
        assert not finding.exclude and finding.count == len(finding.indices)
        flipped = patches["index"].to_numpy()[ball]
        assert np.isin(finding.indices, flipped).mean() > 0.75
        assert np.isin(flipped, finding.indices).mean() > 0.75
        assert {index for group in finding.examples for _, index in group} <= set(finding.indices)


def test_clean_real_patches_are_no_warning(real):
    assert check_disagreeing_groups(*real) == []


def test_scattered_flips_are_no_group(real):
    patches, features = real
    flipped = np.random.default_rng(0).random(len(patches)) < 0.02
    labels = np.where(flipped, 1 - patches["label"], patches["label"])
    assert check_disagreeing_groups(patches.assign(label=labels), features) == []


def lone_group(num=2000, size=30, repeats=False):
    """A cloud of normal patches with `size` tumours close together at its middle."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(num, 5)).astype(np.float32)
    labels = np.zeros(num, int)
    middle = np.sort(rng.choice(num, size, replace=False))
    features[middle] *= 0.1
    labels[middle] = 1
    patches = pd.DataFrame({"split": "train", "index": np.arange(num) * 10, "label": labels})
    patches["content_hash"] = patches["index"].astype(str)
    if repeats:
        patches.loc[middle, "content_hash"] = "the same"
    return patches, features, middle


def test_the_group_is_named_by_rows_of_the_file():
    patches, features, middle = lone_group()
    (finding,) = check_disagreeing_groups(patches, features)
    assert np.isin(middle * 10, finding.indices).mean() > 0.9
    assert finding.facts["groups"][0]["label"] == 1
    assert "labelled tumour" in finding.message


def test_exact_repeats_of_one_patch_are_no_group():
    patches, features, _ = lone_group(repeats=True)
    assert check_disagreeing_groups(patches, features) == []


def test_unknown_labels_neither_disagree_nor_surround():
    patches, features, middle = lone_group()
    patches.loc[patches["label"].eq(0) & (patches.index % 3 == 0), "label"] = -1
    (finding,) = check_disagreeing_groups(patches, features)
    assert finding.facts["num_examined"] == (patches["label"] >= 0).sum()
    assert finding.indices == tuple(middle * 10)
    patches.loc[middle, "label"] = -1
    assert check_disagreeing_groups(patches, features) == []


def test_each_split_is_judged_by_its_own_patches():
    patches, features, middle = lone_group(size=30)
    # the same look is tumour throughout in valid: no neighbour there disagrees
    patches.loc[middle, "split"] = "valid"
    assert check_disagreeing_groups(patches, features) == []


def test_the_scan_is_that_of_sorted_distances():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 3)).astype(np.float32)
    labels = (rng.random(300) < 0.3).astype(np.int64)
    scan = scan_balls(features, labels)
    for row in range(300):
        distance = ((features - features[row]).astype(float) ** 2).sum(axis=1)
        nearest = np.argsort(distance)[1:]
        ratios = {}
        for size, strange in ((12, 18.0), (25, 30.0), (50, 52.0)):
            own = labels[nearest] == labels[row]
            inside, ring = own[:size], own[size : 5 * size]
            if ring.mean() <= 0.25 and inside.mean() > ring.mean():
                both = own[: 5 * size]
                ratio = likelihood(inside) + likelihood(ring) - likelihood(both)
                ratios[size] = ratio / strange
        assert scan.strangeness[row] == pytest.approx(max(ratios.values(), default=0), abs=1e-4)


def likelihood(outcomes):
    share = outcomes.mean()
    return 0.0 if share in (0, 1) else np.log(np.where(outcomes, share, 1 - share)).sum()


def test_a_group_is_found_whatever_the_size_of_the_split(monkeypatch):
    patches, features, middle = lone_group(num=6000, size=60)
    monkeypatch.setattr("ml_core.audit.checks.disagreeing_groups._CELL_SIZE", 1500)
    (finding,) = check_disagreeing_groups(patches, features)
    assert np.isin(middle * 10, finding.indices).mean() > 0.5


@pytest.mark.parametrize("labels", [[], [1], [0, 1], [-1] * 5, [0] * 200, [0, 1] * 100])
@pytest.mark.filterwarnings("error")
def test_tiny_one_class_and_uniform_tables_have_no_groups(labels):
    patches = pd.DataFrame({"split": "train", "index": range(len(labels)), "label": labels})
    patches["content_hash"] = patches["index"].astype(str)
    assert check_disagreeing_groups(patches, np.ones((len(labels), 4), np.float32)) == []
