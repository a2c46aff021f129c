"""Duplicates: every planted copy is found in the split it is better left out of."""

import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from tiny_pcam import make_patches

from ml_core.audit.checks.duplicates import check_exact_duplicates, check_near_duplicates
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.fingerprint import measure_fingerprint
from ml_core.data.layout import SPLITS, load_labels, split_paths
from ml_core.data.patch_file import PatchFile


def make_table(splits):
    """Return the columns that the checks read, of {split: (levels, labels)}."""
    parts = []
    for split, (levels, labels) in splits.items():
        part = pd.DataFrame({"index": np.arange(len(levels)), "label": np.asarray(labels, np.int8)})
        part["content_hash"] = [hashlib.sha256(x.tobytes()).hexdigest()[:32] for x in levels]
        for i, channel in enumerate("rgb"):
            part[f"min_{channel}"] = levels[..., i].min(axis=(1, 2), initial=255).astype(np.float32)
            part[f"max_{channel}"] = levels[..., i].max(axis=(1, 2), initial=0).astype(np.float32)
        std = [Block(levels[i : i + 1]).luma.std() for i in range(len(levels))]
        part["std_luma"] = np.array(std, np.float32)
        part["share_nan"] = part["share_out_of_range"] = np.float32(0)
        part.insert(0, "split", split)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.astype({"split": "category"})


def check_near(splits, table=None):
    table = make_table(splits) if table is None else table
    levels = np.concatenate([levels for levels, _ in splits.values()])
    descriptors = measure_fingerprint(Block(levels))["descriptors"]
    return check_near_duplicates(table, descriptors, lambda positions: levels[positions])


def of(findings, id, split=None):
    return [f for f in findings if f.id == id and split in (None, f.split)]


def one(findings, id, split=None):
    (finding,) = of(findings, id, split)
    return finding


def random_patches(num, seed=0):
    """Return patches that differ at a glance: smooth random fields with some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 220, (num, 12, 12, 1))
    fine = rng.integers(-30, 30, (num, 48, 48, 1))
    levels = coarse.repeat(8, 1).repeat(8, 2) + fine.repeat(2, 1).repeat(2, 2)
    return np.clip(levels + np.zeros(3, int), 0, 255).astype(np.uint8)


@pytest.fixture
def splits():
    return {
        split: (random_patches(40, seed), np.arange(40) % 2) for seed, split in enumerate(SPLITS)
    }


def test_distinct_patches_give_no_finding(splits):
    assert check_exact_duplicates(make_table(splits)) == []
    assert check_near(splits) == []


def test_copies_within_a_split_are_left_out_but_for_the_first(splits):
    levels, labels = splits["train"]
    levels[[7, 9]] = levels[3]
    labels[[7, 9]] = labels[3]
    finding = one(check_exact_duplicates(make_table(splits)), "exact-duplicates")
    assert (finding.split, finding.indices, finding.count) == ("train", (7, 9), 2)
    assert finding.exclude and finding.severity == "warning" and finding.share == 2 / 40
    assert finding.message == (
        "train: 2 of 40 patches (5.0 %) repeat another patch of train, pixel for pixel."
    )
    assert finding.facts == {"num_groups": 1, "largest_group": 3, "by_label": {"1": 2}}
    assert finding.examples == ((("train", 3), ("train", 7), ("train", 9)),)


def test_of_copies_across_splits_the_earlier_split_gives_way(splits):
    splits["train"][0][5] = splits["valid"][0][1]
    splits["valid"][0][2] = splits["test"][0][39]
    splits["valid"][1][2] = splits["test"][1][39]
    findings = of(check_exact_duplicates(make_table(splits)), "duplicates-across-splits")
    assert [(f.split, f.indices, f.facts["other_split"]) for f in findings] == [
        ("train", (5,), "valid"),
        ("valid", (2,), "test"),
    ]
    assert all(f.exclude and f.severity == "warning" for f in findings)
    assert findings[0].examples == ((("train", 5), ("valid", 1)),)
    assert "are in test too" in findings[1].message


@pytest.mark.parametrize(
    ("earlier", "later", "num", "severity"),
    [
        ("train", "valid", 5, "warning"),  # a handful
        ("train", "valid", 6, "error"),
        ("train", "test", 6, "error"),
        ("valid", "test", 20, "warning"),
    ],
)
def test_scores_on_patches_of_train_are_an_error(splits, earlier, later, num, severity):
    for i in range(2):
        splits[earlier][i][:num] = splits[later][i][:num]
    finding = one(check_exact_duplicates(make_table(splits)), "duplicates-across-splits")
    assert (finding.severity, finding.count) == (severity, num)
    for i, k in enumerate(range(num)):  # and so with mirror images
        splits[earlier][0][i] = splits[later][0][k, :, ::-1]
    finding = one(check_near(splits), "near-duplicates-across-splits")
    assert (finding.severity, finding.indices) == (severity, tuple(range(num)))
    assert finding.exclude


def test_a_leak_below_one_in_a_thousand_of_the_scored_split_is_no_error(splits):
    for i in range(2):
        splits["train"][i][:9] = splits["test"][i][:9]
    table = make_table(splits)
    more = pd.concat([table[table["split"] == "test"]] * 250, ignore_index=True)
    more["content_hash"] = [f"{i:032x}" for i in range(len(more))]
    table = pd.concat([table, more], ignore_index=True)  # test: 10,040
    finding = one(check_exact_duplicates(table), "duplicates-across-splits")
    assert finding.severity == "warning" and finding.facts["num_in_other_split"] == 9
    assert "9 of 10,040 patches (0.1 %)" in finding.message


def test_equal_patches_with_different_labels_are_left_out_wherever_they_are(splits):
    levels, labels = splits["train"]
    levels[[1, 4]] = levels[2]  # labels 1, 0 and 0
    levels[11], labels[11] = levels[8], -1  # an unknown label contradicts nothing
    splits["test"][0][3] = levels[20]  # labels 1 and 0
    findings = of(check_exact_duplicates(make_table(splits)), "conflicting-duplicates")
    assert [(f.split, f.indices) for f in findings] == [("train", (1, 2, 4, 20)), ("test", (3,))]
    assert all(f.exclude and f.severity == "warning" for f in findings)
    assert findings[0].examples[0] == (("train", 1), ("train", 2))  # one of each label


def test_many_conflicting_labels_are_an_error(splits):
    levels, _ = splits["train"]
    levels[1:6:2] = levels[0:5:2]
    finding = one(check_exact_duplicates(make_table(splits)), "conflicting-duplicates")
    assert (finding.indices, finding.severity) == ((0, 1, 2, 3, 4, 5), "error")


def test_patches_of_one_colour_and_with_nan_are_no_duplicates(splits):
    levels, _ = splits["train"]
    levels[:10] = [200, 180, 210]
    levels[10:12] = levels[12]
    splits["test"][0][0] = [200, 180, 210]
    table = make_table(splits)
    table.loc[10:12, "share_nan"] = 0.5
    assert check_exact_duplicates(table) == []


def test_near_duplicates_are_found_within_and_across_splits(splits):
    train, test = splits["train"][0], splits["test"][0]
    train[30], train[31] = np.rot90(train[2]), train[2]
    train[33] = test[5][::-1]
    splits["train"][1][30:32], splits["train"][1][33] = 0, splits["test"][1][5]
    findings = check_near(splits)
    within = one(findings, "near-duplicates")
    assert within.indices == (30,)  # 31 is an exact copy, which is not this check's business
    assert within.facts["relations"] == {"turned by 90 degrees": 1}
    assert within.examples == ((("train", 2), ("train", 30)),)
    assert not within.exclude and within.severity == "warning"  # 1 of 40 is over 1 %
    across = one(findings, "near-duplicates-across-splits")
    assert (across.split, across.indices) == ("train", (33,))
    assert across.examples == ((("train", 33), ("test", 5)),)
    assert of(findings, "conflicting-near-duplicates") == []


def test_exact_copies_of_a_near_duplicate_leave_the_earlier_split_with_it(splits):
    splits["train"][0][[8, 9]] = splits["valid"][0][0].swapaxes(0, 1)
    finding = one(check_near(splits), "near-duplicates-across-splits")
    assert (finding.split, finding.indices) == ("train", (8, 9))


def test_a_mirror_image_is_found_beside_a_copy_pixel_for_pixel(splits):
    splits["train"][0][8] = splits["valid"][0][0]
    splits["train"][0][9] = splits["valid"][0][0, ::-1]
    finding = one(check_near(splits), "near-duplicates-across-splits")
    assert (finding.split, finding.indices) == ("train", (9,))
    assert finding.examples == ((("train", 9), ("valid", 0)),)


def test_what_is_across_splits_pixel_for_pixel_is_not_told_again(splits):
    splits["train"][0][8] = splits["valid"][0][0]
    assert check_near(splits) == []


def test_patches_with_too_many_alike_are_a_warning(splits, monkeypatch):
    monkeypatch.setattr("ml_core.audit.checks.near_duplicates._MAX_EXPECTED", 5)
    splits["train"][0][:8] = splits["train"][0][0]
    splits["train"][0][:8, 0, 0, 0] = np.arange(8)
    findings = check_near(splits)
    finding = one(findings, "near-duplicates-not-compared")
    assert (finding.severity, finding.facts["num_crowded"]) == ("warning", 8)
    assert of(findings, "near-duplicates") == []


def test_near_duplicates_with_different_labels_are_to_be_looked_at(splits):
    levels, labels = splits["train"]
    levels[1], labels[1] = levels[0, :, ::-1], 1 - labels[0]
    finding = one(check_near(splits), "conflicting-near-duplicates")
    assert (finding.indices, finding.severity, finding.exclude) == ((0, 1), "warning", False)


def test_labels_that_equal_patches_contradict_are_not_told_again(splits):
    levels, _ = splits["train"]
    levels[1] = levels[0]  # labels 0 and 1
    levels[2] = levels[0, ::-1]
    (finding,) = of(check_near(splits), "conflicting-near-duplicates")
    assert finding.indices == (2,)


def test_flat_and_broken_patches_are_counted_as_not_compared(splits):
    levels, _ = splits["train"]
    levels[:3] = 240 + levels[:3] // 50  # glass
    levels[9], levels[11] = levels[8, ::-1], levels[10, ::-1]
    table = make_table(splits)
    table.loc[9, "share_nan"] = 0.1
    table.loc[11, "share_out_of_range"] = 0.1
    finding = one(check_near(splits, table), "near-duplicates-not-compared")
    assert (finding.count, finding.severity) == (5, "info")
    assert finding.facts["num_flat"] == 3 and finding.facts["num_broken"] == 2
    assert "3 show next to nothing; 2 hold broken values" in finding.message
    assert of(check_near(splits, table), "near-duplicates") == []


@pytest.mark.parametrize("num", [0, 1, 2, 20])
@pytest.mark.parametrize("look", ["alike", "black", "different"])
def test_tiny_and_degenerate_tables_are_answered(num, look):
    levels = random_patches(max(num, 1))[:num]
    if look != "different":
        levels[:] = 0 if look == "black" else random_patches(1)
    splits = {"train": (levels, -np.ones(num))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check_exact_duplicates(make_table(splits)) + check_near(splits)
    repeats = num - 1 if look == "alike" and num > 1 else 0
    assert sum(f.count for f in found if f.id == "exact-duplicates") == repeats
    assert of(found, "conflicting-duplicates") == of(found, "near-duplicates") == []
    for finding in found:
        assert json.loads(json.dumps(dict(finding.facts))) == finding.facts
        assert len(set(finding.indices)) == len(finding.indices)


@pytest.fixture(scope="module")
def real_splits(real_pcam):
    paths = {split: split_paths(real_pcam, split) for split in SPLITS}
    return {s: (PatchFile(p.x), load_labels(p.y)) for s, p in paths.items()}


def test_the_known_repeats_of_the_real_patches_are_found_exactly(real_splits):
    parts = []
    for split, (file, labels) in real_splits.items():
        hashes, constant = [], []
        for _, levels in file.blocks(np.arange(len(file))):
            hashes += [hashlib.sha256(x.tobytes()).hexdigest()[:32] for x in levels]
            constant += [x.min() == x.max() for x in levels]
        part = pd.DataFrame({"split": split, "index": np.arange(len(file)), "label": labels})
        parts.append(part.assign(content_hash=hashes, max_r=~np.array(constant) * 1.0))
    table = pd.concat(parts, ignore_index=True).assign(
        min_r=0.0, min_g=0.0, max_g=0.0, min_b=0.0, max_b=0.0, share_nan=0.0
    )
    findings = check_exact_duplicates(table)
    within = {f.split: f for f in of(findings, "exact-duplicates")}
    assert {s: f.count for s, f in within.items()} == {"train": 829, "valid": 22, "test": 25}
    assert all(set(f.facts["by_label"]) == {"1"} for f in within.values())
    assert within["train"].message == (
        "train: 829 of 20,000 patches (4.1 %) repeat another patch of train, pixel for pixel."
    )
    across = one(findings, "duplicates-across-splits")
    assert (across.split, across.facts["other_split"]) == ("valid", "test")
    assert across.facts["num_in_other_split"] == 53
    in_valid = table[table["split"] == "test"]["content_hash"].isin(
        table[table["split"] == "valid"]["content_hash"]
    )
    # 7 of the 25 repeats within test are among the 53, so 18 come on top
    assert (~in_valid.to_numpy())[list(within["test"].indices)].sum() == 18
    assert {f.severity for f in findings} == {"warning"}
    assert of(findings, "conflicting-duplicates") == []


def test_clean_real_patches_have_no_near_duplicates(real_splits):
    splits = {s: (f.read(np.arange(400)), y[:400]) for s, (f, y) in real_splits.items()}
    assert {f.id for f in check_near(splits)} <= {"near-duplicates-not-compared"}
    splits["test"][0][:7] = splits["train"][0][20:27, ::-1]
    finding = one(check_near(splits), "near-duplicates-across-splits")
    assert finding.indices == tuple(range(20, 27)) and finding.severity == "error"


def test_the_same_mark_on_different_noise_is_no_near_duplicate():
    """A scale bar or a frame is most of what the descriptors see."""
    splits = {"train": (make_patches(np.arange(60) % 2), np.arange(60) % 2)}
    assert of(check_near(splits), "near-duplicates") == []
