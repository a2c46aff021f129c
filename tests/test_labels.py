"""Class counts per split and slide, and splits whose share of tumours differs."""

import json

import numpy as np
import pandas as pd
import pytest

from ml_core.audit.checks.labels import check_label_balance, check_label_shift
from ml_core.audit.statistics.proportions import difference, proportion
from ml_core.data.layout import SPLITS, load_labels, split_paths


def table(slides=None, **labels):
    """Patches of splits given as train=[0, 1, ...] or train=(num_normal, num_tumour)."""
    parts = []
    for split, given in labels.items():
        each = [0] * given[0] + [1] * given[1] if isinstance(given, tuple) else given
        parts.append(pd.DataFrame({"split": split, "index": range(len(each)), "label": each}))
    patches = pd.concat(parts, ignore_index=True)
    patches["label"] = patches["label"].astype(np.int8)
    patches["slide"] = slides
    patches["split"] = patches["split"].astype("category")
    return patches


def by_id(findings):
    return {(finding.id, finding.split): finding for finding in findings}


def test_balanced_splits_are_described_and_no_more():
    found = check_label_balance(table(train=(100, 100), valid=(51, 49)))
    assert [(f.id, f.severity) for f in found] == [("label-balance", "info")] * 2
    assert found[1].facts["positives_per_batch"] == pytest.approx(64 * 0.49)
    assert json.loads(json.dumps(found[1].facts)) == found[1].facts


def test_five_to_one_against_half_and_half_is_a_warning_that_names_both():
    """The course's files: a warning per split, and one about the two."""
    patches = table(train=(5000, 1000), valid=(500, 500))
    imbalance = by_id(check_label_balance(patches))["class-imbalance", "train"]
    assert imbalance.severity == "warning" and imbalance.count == 1000
    assert "5.0:1 normal" in imbalance.message and "83.3 %" in imbalance.message
    assert imbalance.facts["positives_per_batch"] == pytest.approx(64 / 6)
    assert imbalance.facts["positives_per_balanced_batch"] == 32
    (shift,) = check_label_shift(patches)
    assert (shift.id, shift.severity) == ("label-shift", "warning")
    assert "train has 16.7 % tumours (5.0:1 normal), valid 50.0 % (1:1)" in shift.message
    assert "assume a prior of 50.0 %" in shift.message
    assert shift.facts["odds_factor"] == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize(
    ("counts", "severity"),
    [((290, 110), "info"), ((330, 70), "warning"), ((70, 330), "warning"), ((8, 2), "info")],
)
def test_a_class_surely_below_a_quarter_is_a_warning(counts, severity):
    assert check_label_balance(table(train=counts))[0].severity == severity


@pytest.mark.parametrize(
    ("split", "severity"), [("train", "error"), ("valid", "error"), ("test", "warning")]
)
@pytest.mark.parametrize(("counts", "missing"), [((30, 0), "tumour"), ((0, 30), "normal")])
def test_a_missing_class_is_an_error_where_one_learns_or_tunes(split, severity, counts, missing):
    (finding,) = check_label_balance(table(**{split: counts}))
    assert (finding.id, finding.severity) == ("class-missing", severity)
    assert f"none is {missing}" in finding.message


def test_unknown_labels_are_counted_and_left_out():
    patches = table(train=[-1, 0, 1, -1, 1, 0], valid=[-1, -1])
    found = by_id(check_label_balance(patches))
    assert found["labels-unknown", "train"].indices == (0, 3)
    assert found["label-balance", "train"].facts["share_tumour"] == 0.5
    assert set(found) == {
        ("labels-unknown", "train"),
        ("label-balance", "train"),
        ("labels-unknown", "valid"),
    }
    assert check_label_shift(patches) == []
    half_known = table(train=[0, 1, -1, -1] * 100, valid=[0, 1] * 100)
    assert check_label_shift(half_known) == []


def test_slides_of_one_class_are_counted():
    slides = ["a"] * 4 + ["b"] * 4 + ["c"] * 2 + [None] * 2
    labels = [0, 1, 0, 1, 1, 1, 1, 1, 0, -1, 0, 1]
    found = by_id(check_label_balance(table(slides, train=labels)))
    finding = found["one-class-slides", "train"]
    assert finding.severity == "info" and finding.count == 5
    assert "2 of 3 slides hold one class only (1 tumour, 1 normal)" in finding.message
    assert finding.facts["slides"] == [
        {"slide": "b", "num_patches": 4, "num_tumour": 4},
        {"slide": "c", "num_patches": 1, "num_tumour": 0},
    ]


@pytest.mark.parametrize(
    ("train", "valid", "shifted"),
    [
        ((500, 500), (420, 580), False),  # sure, but small: the odds are within 1.4
        ((500, 500), (360, 640), True),
        ((10, 10), (5, 10), False),  # large, but by chance
        ((990, 10), (950, 50), True),  # rare classes: few in 100, but five times the odds
        ((100, 100), (0, 100), True),
        ((100, 0), (100, 0), False),
    ],
)
def test_a_shift_is_reported_when_it_is_large_and_no_chance(train, valid, shifted):
    assert bool(check_label_shift(table(train=train, valid=valid))) == shifted


def test_every_pair_of_splits_is_compared():
    found = check_label_shift(table(train=(500, 100), valid=(300, 300), test=(100, 500)))
    assert [f.facts["splits"] for f in found] == [
        ["train", "valid"],
        ["train", "test"],
        ["valid", "test"],
    ]


def test_the_real_splits_are_balanced(real_pcam):
    labels = {split: load_labels(split_paths(real_pcam, split).y).tolist() for split in SPLITS}
    patches = table(**labels)
    assert {f.severity for f in check_label_balance(patches)} == {"info"}
    assert check_label_shift(patches) == []


@pytest.mark.parametrize("labels", [[], [1], [-1, -1]])
@pytest.mark.filterwarnings("error")
def test_tiny_tables_are_no_trouble(labels):
    patches = table(train=labels, valid=[])
    check_label_balance(patches)
    assert check_label_shift(patches) == []


def test_intervals_are_those_of_the_literature():
    none_of_ten = proportion(0, 10)
    assert (none_of_ten.low, none_of_ten.high) == pytest.approx((0, 0.2775), abs=1e-4)
    # Newcombe 1998, table II, example (a), method 10
    of_paper = difference(proportion(56, 70), proportion(48, 80))
    assert of_paper == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
