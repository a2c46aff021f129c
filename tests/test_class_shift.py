"""A class that was handled otherwise than the other is told from tissue that differs."""

import warnings

import numpy as np
import pandas as pd
import pytest
from real_patches import as_jpeg, read_patches
from scipy.ndimage import gaussian_filter

from ml_core.audit.checks.class_shift import STATISTICS, check_class_shift
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import measure_pixels

NAMES = [name for name in STATISTICS if name != "relative_focus"] + ["std_luma"]


def made_table(num=2_000, seed=0, **shifts):
    """Return a split whose statistics are all normal; tumour is moved by so many deviations."""
    rng = np.random.default_rng(seed)
    label = np.arange(num) % 2
    values = {name: rng.normal(10 + shifts.get(name, 0) * label, 1) for name in NAMES}
    return pd.DataFrame({"split": "train", "index": np.arange(num), "label": label, **values})


def test_a_contrast_that_the_other_splits_lack_is_named():
    table = pd.concat(
        [
            made_table(mean_r=1.0),
            made_table(seed=1).assign(split="valid"),
            made_table(seed=2).assign(split="test"),
        ],
        ignore_index=True,
    )
    (finding,) = check_class_shift(table)
    assert (finding.id, finding.severity, finding.split) == ("class-shift", "warning", "train")
    assert "differ in mean level (mean_r) as tissue does not" in finding.message
    (shift,) = finding.facts["shifts"]
    # two normals a deviation apart: delta = 2 * Phi(1 / sqrt(2)) - 1
    assert shift["delta"] == pytest.approx(0.52, abs=0.05)
    assert shift["interval"][0] < 0.52 < shift["interval"][1]
    assert shift["delta_elsewhere"] == pytest.approx(0, abs=0.06)


def test_of_two_splits_the_one_with_the_contrast_is_named():
    table = pd.concat(
        [made_table(), made_table(seed=1, mean_r=-1.5).assign(split="valid")], ignore_index=True
    )
    assert [finding.split for finding in check_class_shift(table)] == ["valid"]


def test_a_contrast_that_all_splits_share_is_tissue():
    parts = [made_table(seed=i, mean_r=1.5, focus=0.5).assign(split=f"s{i}") for i in range(3)]
    assert check_class_shift(pd.concat(parts, ignore_index=True)) == []


def test_one_split_alone_is_accused_only_by_what_handling_changes():
    assert check_class_shift(made_table(mean_r=3)) == []
    (finding,) = check_class_shift(made_table(blockiness=1.5))
    assert finding.severity == "warning" and "no other split" in finding.message
    (finding,) = check_class_shift(made_table(max_g=-4))
    assert finding.severity == "error"


@pytest.mark.parametrize("num", [0, 1, 20, 99])
def test_small_splits_are_left_alone(num):
    assert check_class_shift(made_table(num, blockiness=5)) == []


def test_one_class_unknown_labels_and_missing_values_are_taken():
    table = made_table(mean_r=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_class_shift(table.assign(label=1)) == []
        assert check_class_shift(table.assign(label=-1)) == []
        assert check_class_shift(table.assign(**dict.fromkeys(NAMES, np.nan))) == []
        assert check_class_shift(table.assign(**dict.fromkeys(NAMES, 7.0))) == []


@pytest.fixture(scope="module")
def real(real_pcam):
    """1,000 patches of train and the levels of its tumour patches, 500 of valid and of test."""
    tables, tumour = [], np.zeros(0)
    for split, step in (("train", 20), ("valid", 3), ("test", 3)):
        rows = np.arange(0, 20_000 if split == "train" else 1_500, step)
        levels, labels = read_patches(real_pcam, split, rows)
        if split == "train":
            tumour = levels[labels == 1]
        tables.append(measure(levels).assign(split=split, label=labels, index=rows))
    return pd.concat(tables, ignore_index=True), tumour


def measure(levels):
    blocks = [measure_pixels(Block(levels[i : i + 32])) for i in range(0, len(levels), 32)]
    return pd.DataFrame({name: np.concatenate([block[name] for block in blocks]) for name in NAMES})


def test_the_classes_of_real_patches_are_no_shift(real):
    assert check_class_shift(real[0]) == []


SHIFTS = {
    "10 levels lighter": lambda levels: np.clip(levels + 10.0, 0, 255),
    "10 levels darker": lambda levels: np.clip(levels - 10.0, 0, 255),
    "redder": lambda levels: np.clip(levels + np.array([15.0, 0, 0]), 0, 255),
    "blurred": lambda levels: gaussian_filter(levels.astype(float), (0, 0.7, 0.7, 0)),
    "compressed": lambda levels: as_jpeg(levels, 30),
    "less contrast": lambda levels: 128 + (levels - 128.0) * 0.9,
}


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_of_all_real_tumour_patches_is_found_beside_other_splits_and_alone(real, name):
    table, tumour = real
    shifted = measure(SHIFTS[name](tumour).round().astype(np.uint8))
    table = table.copy()
    is_tumour = (table["split"] == "train") & (table["label"] == 1)
    table.loc[is_tumour, NAMES] = shifted.to_numpy()
    assert [finding.split for finding in check_class_shift(table)] == ["train"]
    alone = table[table["split"] == "train"]
    assert [finding.split for finding in check_class_shift(alone)] == ["train"]


def named(*tables):
    splits = ("train", "valid", "test")
    parts = [table.assign(split=split) for split, table in zip(splits, tables, strict=False)]
    return [finding.split for finding in check_class_shift(pd.concat(parts, ignore_index=True))]


def test_a_contrast_between_those_of_the_other_splits_is_not_accused():
    tables = (made_table(seed=i, mean_r=shift) for i, shift in enumerate((1.2, 0, 4)))
    assert named(*tables) == ["valid", "test"]


@pytest.mark.parametrize(("num", "is_named"), [(120, False), (2_000, True)])
def test_a_contrast_to_another_split_counts_only_where_chance_cannot_make_it(num, is_named):
    tables = (made_table(num, seed=14, mean_r=1.0), made_table(num, seed=15))
    assert named(*tables) == ["train"] * is_named


@pytest.mark.parametrize(("num", "is_named"), [(150, False), (4_000, True)])
def test_a_contrast_alone_counts_only_where_chance_cannot_make_it(num, is_named):
    assert named(made_table(num, seed=4, blockiness=1.2)) == ["train"] * is_named


def test_the_contrast_elsewhere_is_that_of_the_nearest_split():
    tables = (made_table(seed=i, mean_r=shift) for i, shift in enumerate((3, 0, 0.55)))
    parts = [t.assign(split=s) for t, s in zip(tables, ("train", "valid", "test"), strict=True)]
    (finding,) = check_class_shift(pd.concat(parts, ignore_index=True))
    assert finding.facts["shifts"][0]["delta_elsewhere"] == pytest.approx(0.3, abs=0.06)


def test_focus_that_rises_with_the_contrast_only_is_no_shift_of_the_focus_for_its_contrast():
    table = made_table(std_luma=30)
    table["focus"] = table["std_luma"] ** 2 * np.random.default_rng(9).uniform(1, 2, len(table))
    (finding,) = check_class_shift(table)
    assert [shift["statistic"] for shift in finding.facts["shifts"]] == ["focus"]
