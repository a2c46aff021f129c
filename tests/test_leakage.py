"""Slides, patients and tissue that two splits share are found; what is unknown is said."""

import json

import numpy as np
import pandas as pd
import pytest

from ml_core.audit.checks.leakage import check_overlaps, check_slides
from ml_core.audit.checks.meta_labels import check_meta_labels

SPLITS = ["train", "valid", "test"]


def table(**of_split):
    """Return patches of the given splits, each {column: values}, with far apart coordinates."""
    parts = []
    for split, columns in of_split.items():
        num = len(next(iter(columns.values())))
        parts.append(
            pd.DataFrame(
                {
                    "split": split,
                    "index": 10 * np.arange(num),
                    "label": np.arange(num, dtype=np.int8) % 2,
                    "slide": pd.Series([None] * num, dtype=object),
                    "coord_x": np.nan,
                    "coord_y": np.nan,
                    **columns,
                }
            )
        )
    joined = pd.concat(parts, ignore_index=True)
    return joined.assign(split=pd.Categorical(joined["split"], SPLITS))


def ids(findings):
    return [finding.id for finding in findings]


def test_a_slide_in_two_splits_is_an_error_that_names_the_training_side():
    patches = table(
        train={"slide": ["a", "b", "a", "c", "d", "e"]},
        valid={"slide": ["f", "a"]},
        test={"slide": ["f", "g"]},
    )
    train, valid, unknown = check_slides(patches)
    assert (train.id, train.severity, train.split) == ("slide-in-two-splits", "error", "train")
    assert train.indices == (0, 20) and train.exclude and train.count == 2
    assert train.share == pytest.approx(2 / 6)
    assert "1 slide of train is also in valid (a): 2 patches of train (33.3 %)" in train.message
    assert (valid.split, valid.indices, valid.facts["slides"]) == ("valid", (0,), ["f"])
    assert unknown.id == "patients-unknown"


def test_a_patient_in_two_splits_is_an_error_though_slides_differ():
    patches = table(
        train={"slide": ["a", "b", "c"], "patient": ["p", "q", "r"]},
        valid={"slide": ["d", "e"], "patient": ["p", "s"]},
    )
    (finding,) = check_slides(patches)
    assert (finding.id, finding.indices) == ("patient-in-two-splits", (0,))
    assert finding.facts["patients"] == ["p"]


def test_a_random_split_of_all_slides_is_not_mended_by_exclusion():
    slides = ["a", "b", "c"] * 20
    (finding, _) = check_slides(table(train={"slide": slides}, valid={"slide": slides}))
    assert finding.severity == "error" and not finding.exclude
    assert "Split anew by slide" in finding.action


def test_clean_splits_give_no_finding_when_patients_are_known():
    patches = table(
        train={"slide": ["a", "b"], "patient": ["p", "p"]},
        valid={"slide": ["c"], "patient": ["q"]},
    )
    assert check_slides(patches) == []


def test_without_meta_it_says_that_it_cannot_tell():
    patches = table(train={"slide": [None] * 4}, valid={"slide": ["a", None, "b"]})
    (finding,) = check_slides(patches)
    assert (finding.id, finding.severity) == ("slides-unknown", "info")
    assert "For 5 patches of train and valid no slide is known" in finding.message
    assert "cannot be told whether splits share slides or patients" in finding.message
    assert finding.facts["num_without_slide"] == {"train": 4, "valid": 1}


def test_tissue_in_two_splits_is_found_with_its_pairs():
    patches = table(
        train={
            "slide": ["a", "a", "a", "b", "a"],
            "coord_x": [0.0, 1000, 5000, 0, 9000],
            "coord_y": [0.0, 1000, 5000, 0, 9000],
        },
        valid={"slide": ["a", "a"], "coord_x": [192.0, 1383], "coord_y": [0.0, 1383]},
    )
    (finding,) = check_overlaps(patches)
    assert (finding.id, finding.severity) == ("overlap-across-splits", "error")
    assert finding.indices == (0, 10) and finding.exclude
    assert finding.examples == ((("train", 0), ("valid", 0)), (("train", 10), ("valid", 10)))
    assert finding.facts["overlap_counts"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert check_overlaps(patches, footprint=96) == []


def test_patches_side_by_side_or_on_other_slides_do_not_overlap():
    steps = {"coord_x": [0.0, 384, 768], "coord_y": [0.0, 0, 0]}
    same_place = {"coord_x": [0.0], "coord_y": [0.0]}
    patches = table(
        train={"slide": ["a"] * 3, **steps},
        valid={"slide": ["b"], **same_place},
        test={"slide": [None], **same_place},
    )
    assert check_overlaps(patches) == []


def test_overlap_within_a_split_is_a_fact_with_its_distribution():
    patches = table(
        train={
            "slide": ["a", "a", "a", "a", "b"],
            "coord_x": [0.0, 96, 3000, 3000, 0],
            "coord_y": [0.0, 0, 3000, 3000, 0],
        }
    )
    (finding,) = check_overlaps(patches)
    assert (finding.id, finding.severity) == ("overlap-within-split", "info")
    assert finding.indices == (0, 10, 20, 30) and not finding.exclude
    assert finding.share == pytest.approx(0.8)
    assert finding.facts["overlap_counts"] == [0, 0, 0, 0, 0, 0, 0, 2, 0, 2]
    assert finding.examples == ((("train", 20), ("train", 30)), (("train", 0), ("train", 10)))


@pytest.mark.parametrize("seed", range(3))
def test_the_overlaps_are_those_that_comparing_all_pairs_finds(seed):
    rng = np.random.default_rng(seed)

    def scattered(num):
        places = rng.integers(0, 30, (num, 2)) * 100.0  # many at one place, some just touching
        slides = rng.choice(["a", "b", "c"], num)
        return {"slide": slides, "coord_x": places[:, 0], "coord_y": places[:, 1]}

    patches = table(train=scattered(120), valid=scattered(60), test=scattered(30))
    found = {
        (finding.id, finding.split, finding.facts.get("other_split")): finding.indices
        for finding in check_overlaps(patches)
    }
    x, y = patches["coord_x"].to_numpy(), patches["coord_y"].to_numpy()
    slide, split = patches["slide"].to_numpy(), patches["split"].to_numpy()
    overlap = (np.abs(x[:, None] - x) < 384) & (np.abs(y[:, None] - y) < 384)
    overlap &= (slide[:, None] == slide) & ~np.eye(len(x), dtype=bool)
    assert len(found) == 6
    for (kind, first, second), indices in found.items():
        other = first if kind == "overlap-within-split" else second
        hit = overlap[split == first][:, split == other].any(axis=1)
        assert indices == tuple(patches.loc[split == first, "index"][hit])


def test_as_many_patches_at_one_place_as_there_are_do_not_compare_all_pairs():
    num = 30_000  # all pairs would be 900 million
    same = {"slide": ["a"] * num, "coord_x": np.zeros(num), "coord_y": np.zeros(num)}
    across, train, valid = check_overlaps(table(train=same, valid=same))
    assert across.count == train.count == valid.count == num


def test_labels_that_are_not_those_of_the_meta_csv_are_found():
    flag = pd.array([False, True] * 100, dtype="boolean")
    patches = table(train={"center_tumor_patch": flag}, valid={"center_tumor_patch": flag[:3]})
    assert check_meta_labels(patches) == []
    patches.loc[7, "label"] = 0
    patches.loc[[8, 9], "center_tumor_patch"] = pd.NA
    patches.loc[11, "label"] = -1
    (finding,) = check_meta_labels(patches)
    assert (finding.severity, finding.indices) == ("warning", (70,))
    assert "1 of 197 patches (0.5 %)" in finding.message
    patches["label"] = 1 - patches["label"]
    train, valid = check_meta_labels(patches)
    assert train.severity == valid.severity == "error" and not train.exclude


def test_flags_of_one_split_only_are_compared_there():
    patches = table(
        train={"center_tumor_patch": np.array([False, True, pd.NA, False], object)},
        valid={"slide": ["a", "b"]},
    )
    (finding,) = check_meta_labels(patches)
    assert finding.indices == (30,) and finding.split == "train"
    assert check_meta_labels(patches.drop(columns="center_tumor_patch")) == []


@pytest.mark.parametrize("num", [0, 1, 2])
@pytest.mark.parametrize("slide", [None, "a"])
def test_tables_of_next_to_nothing_are_no_trouble(num, slide, recwarn):
    columns = {"slide": [slide] * num, "coord_x": [0.0] * num, "coord_y": [0.0] * num}
    patches = table(train=columns, valid=columns)
    findings = check_slides(patches) + check_overlaps(patches) + check_meta_labels(patches)
    if num and slide:
        assert ids(findings)[0] == "slide-in-two-splits"
    json.dumps([dict(finding.facts) for finding in findings], allow_nan=False)
    assert len(recwarn) == 0


def test_one_split_alone_shares_nothing():
    assert check_slides(table(train={"slide": [None, None]})) == []
