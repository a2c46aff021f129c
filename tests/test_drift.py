"""A split that was changed as a whole is told from one that merely holds other slides."""

import json

import numpy as np
import pandas as pd
import pytest
from changed_patches import brighter, join, restained, with_gamma
from measured import measure_table
from real_patches import as_jpeg, read_patches

from ml_core.audit.checks.drift import STATISTICS, TOGETHER, check_drift
from ml_core.audit.statistics.linear_score import fold_numbers, out_of_fold_scores
from ml_core.audit.statistics.rank_effect import compare_groups, compare_sorted
from ml_core.data.patch_file import evenly_spaced


@pytest.fixture(scope="module")
def real(real_pcam):
    """Levels and labels per split: 800 of train, 400 each of valid and test."""
    nums = {"train": (20_000, 800), "valid": (1500, 400), "test": (1500, 400)}
    return {
        split: read_patches(real_pcam, split, evenly_spaced(*num)) for split, num in nums.items()
    }


@pytest.fixture(scope="module")
def tables(real):
    return {split: measure_table(*patches, split) for split, patches in real.items()}


def warnings(findings):
    return [finding for finding in findings if finding.severity != "info"]


def largest(patches):
    effects = check_drift(patches)[-1].facts["effects"]
    return max(abs(each["delta"]) for each in effects if each["statistic"] != TOGETHER)


def test_real_splits_of_other_slides_are_no_drift(tables):
    (finding,) = check_drift(join(*tables.values()))
    assert (finding.id, finding.severity) == ("splits-compared", "info")
    effects = finding.facts["effects"]
    assert len(effects) == 3 * 2 * (len(STATISTICS) + 1)  # pairs, classes, and all together
    assert largest(join(*tables.values())) < 0.30
    for effect in effects:
        assert effect["delta_low"] <= effect["delta"] <= effect["delta_high"]
        assert 0 <= effect["p_holm"] <= 1
    json.dumps(dict(finding.facts), allow_nan=False)


@pytest.mark.parametrize(
    ("split", "change"),
    [
        ("valid", brighter),
        ("valid", restained),
        ("valid", lambda levels: as_jpeg(levels, 50)),
        ("valid", lambda levels: as_jpeg(levels, 30)),
        ("valid", lambda levels: with_gamma(levels, 0.8)),  # no single statistic tells
        ("train", with_gamma),
    ],
    ids=["brighter", "stain", "jpeg 50", "jpeg 30", "gamma 0.8", "gamma 1.2"],
)
def test_a_changed_split_is_found_in_its_pairs_and_no_other(real, tables, split, change):
    levels, labels = real[split]
    changed = tables | {split: measure_table(change(levels), labels, split)}
    pairs = {
        (finding.facts["first"], finding.split)
        for finding in warnings(check_drift(join(*changed.values())))
    }
    expected = {("train", "valid"), ("valid", "test")}
    assert pairs == (expected if split == "valid" else {("train", "valid"), ("train", "test")})


def test_a_brighter_split_is_described_by_what_changed_most(real, tables):
    levels, labels = real["valid"]
    patches = join(tables["train"], measure_table(brighter(levels), labels, "valid"))
    drift, compared = check_drift(patches)
    assert (drift.id, drift.severity, drift.split) == ("drift", "warning", "valid")
    assert "valid differs from train in" in drift.message and "Cliff's delta +0.9" in drift.message
    assert drift.facts["together_auc"] > 0.9 and not drift.exclude
    by_statistic = {effect["statistic"]: effect for effect in drift.facts["effects"]}
    assert by_statistic["min_g"]["delta"] > 0.7
    assert len(compared.facts["effects"]) == 2 * (len(STATISTICS) + 1)
    for (first, row), (second, other) in drift.examples:
        assert (first, second) == ("train", "valid")
        assert tables["train"]["label"][row] == tables["valid"]["label"][other]


def one_statistic(**of_split):
    """Return a table with the one column `focus`, of labelled patches that all differ."""
    parts = [
        pd.DataFrame(
            {
                "split": split,
                "index": np.arange(len(values)),
                "label": np.arange(len(values)) % 2,
                "focus": np.asarray(values, np.float32),
                "content_hash": [f"{split}{i}" for i in range(len(values))],
            }
        )
        for split, values in of_split.items()
    ]
    return join(*parts)


def test_another_share_of_tumour_is_no_drift():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(1000) < 50), rng.permutation(np.arange(1000) < 900)
    values = [3 * of_split + rng.standard_normal(1000) for of_split in labels]
    patches = one_statistic(train=values[0], valid=values[1])
    patches = patches.assign(label=np.concatenate(labels).astype(np.int8))
    assert warnings(check_drift(patches)) == []
    assert len(warnings(check_drift(patches.assign(label=np.int8(-1))))) == 1


def test_what_is_significant_but_small_is_no_drift():
    rng = np.random.default_rng(0)
    train, valid = rng.standard_normal(40_000), 0.2 + rng.standard_normal(40_000)
    (finding,) = check_drift(one_statistic(train=3 * train, valid=3 * valid))
    # Cliff's delta of two normals 0.2 apart: 2 * Phi(0.2 / sqrt(2)) - 1 = 0.1125
    single = [e for e in finding.facts["effects"] if e["statistic"] == "focus"]
    assert all(effect["p_holm"] < 1e-30 for effect in single)
    assert np.mean([effect["delta"] for effect in single]) == pytest.approx(0.1125, abs=0.01)
    assert np.mean([effect["distance"] for effect in single]) == pytest.approx(0.2, abs=0.02)


def test_what_is_large_but_may_be_chance_is_no_drift():
    (finding,) = check_drift(one_statistic(train=[1, 2, 3, 4], valid=[5, 6, 7, 8]))
    assert finding.id == "splits-compared" and "no more than chance" in finding.message
    assert all(effect["delta"] == 1 for effect in finding.facts["effects"])


def test_a_shift_of_one_class_alone_is_drift():
    rng = np.random.default_rng(0)
    train, valid = rng.standard_normal(600), rng.standard_normal(600)
    valid[::2] += 1.5
    (drift, _) = check_drift(one_statistic(train=train, valid=valid))
    assert "focus of normal patches" in drift.message


def test_p_values_are_corrected_for_the_number_of_comparisons():
    rng = np.random.default_rng(1)
    patches = one_statistic(train=rng.standard_normal(60), valid=rng.standard_normal(60) + 0.5)
    (alone,) = check_drift(patches)
    first, second = sorted(effect["p_holm"] for effect in alone.facts["effects"])
    plain = []
    for label in (0, 1):
        of_class = patches[patches["label"] == label]
        values, in_valid = of_class["focus"].to_numpy(), (of_class["split"] == "valid").to_numpy()
        plain.append(compare_groups(values, in_valid).p_value)
    assert first == pytest.approx(2 * min(plain)) and second == pytest.approx(max(plain))


def test_rank_effects_are_those_worked_by_hand():
    effect = compare_sorted(np.array([1.0, 2, 3]), np.array([2.0, 4]))
    # pairs above: 2>1, 4>1, 4>2, 4>3; a tie: 2=2; below: 2<3
    assert effect.auc == pytest.approx(4.5 / 6) and effect.delta == pytest.approx(0.5)
    # DeLong: placements of second (0.5, 1), of first (1, 0.75, 0.5)
    half = 1.959964 * np.sqrt(0.125 / 2 + 0.0625 / 3)
    assert effect.low == pytest.approx(0.75 - half) and effect.high == 1
    assert effect.strength == effect.auc and effect.sure_strength == 0.5
    assert np.isnan(compare_sorted(np.empty(0), np.array([1.0])).auc)
    assert compare_groups(np.array([1, np.nan, 3, np.inf]), np.arange(4) > 1).auc == 1
    constant = compare_sorted(np.zeros(5), np.zeros(7))
    assert constant.auc == 0.5 and constant.p_value == 1


def test_out_of_fold_scores_have_not_seen_their_row_or_its_repeats():
    """With more columns than patches any row seen in the fit is told apart, and no other."""
    rng = np.random.default_rng(0)
    columns, target = rng.standard_normal((60, 80)), np.arange(60) % 2 == 1
    twice = np.repeat(columns, 4, axis=0), np.repeat(target, 4)
    hashes = pd.Series([f"{i // 4:x}" for i in range(240)])
    folds = fold_numbers(hashes)
    assert set(folds) == set(range(5)) and (folds[::4] == folds.reshape(60, 4).T).all()
    assert np.array_equal(fold_numbers(hashes[::-1]), folds[::-1])
    scores = out_of_fold_scores(*twice, folds)
    assert abs(compare_groups(scores, twice[1]).auc - 0.5) < 0.2
    leaking = out_of_fold_scores(*twice, np.arange(240) % 5)
    assert compare_groups(leaking, twice[1]).auc > 0.95


def test_wild_values_do_not_own_the_fit():
    rng = np.random.default_rng(0)
    target = rng.random(2000) < 0.5
    columns = rng.standard_normal((2000, 2))  # the second is noise
    columns[:, 0] += target
    columns[[5, 7, 8], 0] = 1e9, -3e8, np.nan
    scores = out_of_fold_scores(columns, target, np.arange(2000) % 5)
    assert np.isfinite(scores).all() and compare_groups(scores, target).auc > 0.72


@pytest.mark.parametrize("num", [0, 1, 2, 20])
@pytest.mark.parametrize("label", [-1, 0, None])
def test_tables_of_next_to_nothing_are_no_trouble(num, label, recwarn):
    levels = np.full((num, 96, 96, 3), 200, np.uint8)  # all patches the same
    if num == 0:
        empty = one_statistic(train=[], valid=[])
        assert check_drift(empty) == []
        return
    labels = np.arange(num) % 2 if label is None else np.full(num, label)
    patches = join(measure_table(levels, labels, "train"), measure_table(levels, labels, "valid"))
    patches["focus"] = np.nan
    findings = check_drift(patches)
    assert [finding.id for finding in findings] == ["splits-compared"]
    json.dumps(dict(findings[0].facts), allow_nan=False)
    assert check_drift(patches[patches["split"] == "train"]) == []
    assert len(recwarn) == 0


def test_an_unlabelled_split_is_compared_as_a_whole(tables):
    unlabelled = tables["valid"].assign(label=np.int8(-1))
    (finding,) = check_drift(join(tables["train"], unlabelled))
    assert {effect["label"] for effect in finding.facts["effects"]} == {None}
    partly = join(tables["train"], tables["valid"])
    partly.loc[::5, "label"] = -1
    assert {effect["label"] for effect in check_drift(partly)[-1].facts["effects"]} == {0, 1}
