import h5py
import numpy as np
import pandas as pd
import pytest
from measured import measure_table
from PIL import Image, ImageFilter

from ml_core.audit.checks.broken import check_broken, find_broken
from ml_core.data.layout import split_paths

RNG = np.random.default_rng(0)


def tissue(num):
    """Blobs of two colours: textured, sharp, not real."""
    noise = np.random.default_rng(1).integers(0, 256, (num, 96, 96), dtype=np.uint8)
    blobs = [
        np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(1))) for each in noise
    ]
    share = np.clip((np.stack(blobs)[..., None] - 127.0) / 40 + 0.5, 0, 1)
    return np.rint(
        np.array([220, 150, 200]) * share + np.array([90, 50, 130]) * (1 - share)
    ).astype(np.uint8)


def found(levels, **columns):
    masks = find_broken(measure_table(levels, **columns))
    return {kind: np.flatnonzero(mask).tolist() for kind, mask in masks.items() if mask.any()}


def test_nothing_is_wrong_with_textured_patches():
    assert found(tissue(8)) == {}


def test_every_planted_kind_is_found_where_it_is_and_nowhere_else():
    levels = tissue(12)
    levels[1], levels[2], levels[3] = 0, 255, (200, 150, 180)
    levels[4] = 240 + RNG.integers(0, 4, levels[4].shape)
    levels[5, 40:] = 255
    levels[6] = np.asarray(Image.fromarray(levels[6]).filter(ImageFilter.GaussianBlur(2.5)))
    levels[7] = levels[7].reshape(12, 8, 12, 8, 3).mean(axis=(1, 3), keepdims=True).repeat(
        8, axis=1).repeat(8, axis=3).reshape(96, 96, 3)  # fmt: skip
    shares = np.zeros((2, 12), np.float32)
    shares[0, 8], shares[1, 9] = 0.01, 0.01
    assert found(levels, share_nan=shares[0], share_out_of_range=shares[1]) == {
        "non-finite": [8],
        "out-of-range": [9],
        "black": [1],
        "white": [2],
        "constant": [3],
        "near-blank": [4],
        "half-empty": [5],
        "out-of-focus": [6],
        "jpeg-damaged": [7],
    }


def test_a_patch_that_shows_nothing_is_of_one_kind_only_the_worst():
    levels = np.zeros((3, 96, 96, 3), np.uint8)
    share = np.float32([0.5, 0, 0])
    assert found(levels, share_nan=share, share_out_of_range=share) == {
        "non-finite": [0],
        "black": [1, 2],
    }


def test_one_black_patch_in_ten_thousand_is_a_warning_and_one_in_a_hundred_an_error():
    table = pd.concat([measure_table(tissue(1))] * 10_000, ignore_index=True)
    table["index"] = np.arange(len(table))
    dark = [f"{end}_{c}" for end in ("min", "max") for c in "rgb"]
    severities = {}
    for num in (1, 100):
        table.loc[: num - 1, dark] = 0
        (finding,) = check_broken(table)
        severities[num] = finding.severity
        assert finding.indices == tuple(range(num)) and finding.exclude
    assert severities == {1: "warning", 100: "error"}


def test_a_single_nan_is_an_error_that_says_how_many_and_what_to_do():
    share = np.zeros(8, np.float32)
    share[5] = 1e-4
    (finding,) = check_broken(measure_table(tissue(8), share_nan=share))
    assert (finding.id, finding.severity, finding.indices) == ("non-finite", "error", (5,))
    assert finding.message == "train: 1 of 8 patches (12.5 %) hold NaN or infinite values."
    assert "data.on_findings: exclude" in finding.action
    assert finding.examples == ((("train", 5),),)
    assert finding.facts == {"labelled tumour": 1, "labelled normal": 0}


def test_rows_are_those_of_the_file_and_splits_are_told_apart():
    levels = tissue(4)
    levels[2] = 255
    train = measure_table(levels, index=np.array([10, 20, 30, 40]))
    table = pd.concat([train, measure_table(levels, split="valid")], ignore_index=True)
    findings = check_broken(table)
    assert [(f.split, f.indices) for f in findings] == [("train", (30,)), ("valid", (2,))]


@pytest.fixture(scope="module")
def real_table(real_pcam):
    tables = []
    for split in ("train", "valid", "test"):
        with h5py.File(split_paths(real_pcam, split).x) as file:
            tables.append(measure_table(file["x"][:], split=split))
    return pd.concat(tables, ignore_index=True)


def test_real_patches_near_blanks_are_found_exactly_and_nothing_is_an_error(real_table):
    findings = check_broken(real_table)
    near_blank = {f.split: f.count for f in findings if f.id == "near-blank"}
    assert near_blank == {"train": 105, "valid": 12, "test": 13}
    assert {f.severity for f in findings} == {"info"}
    assert not any(f.exclude for f in findings)


def test_real_patches_the_padded_border_of_a_slide_is_half_empty(real_table):
    half_empty = find_broken(real_table)["half-empty"]
    train = real_table["index"][half_empty & (real_table["split"] == "train").to_numpy()]
    assert {8558, 19938, 7804} <= set(train)  # looked at: white and black padding
    assert len(train) < 20


def test_each_kind_is_as_bad_as_its_share_of_its_own_split():
    levels = tissue(8)
    levels[1] = (200, 150, 180)
    levels[2, 40:] = 255
    share = np.zeros(8, np.float32)
    share[3] = 0.01
    train = measure_table(levels, share_out_of_range=share)
    table = pd.concat([train, measure_table(tissue(8), split="valid")], ignore_index=True)
    assert {f.id: (f.severity, f.exclude, f.share) for f in check_broken(table)} == {
        "out-of-range": ("error", True, 1 / 8),
        "constant": ("error", True, 1 / 8),
        "half-empty": ("warning", False, 1 / 8),
    }
