"""What predicts the label and should not is found; what real tissue shows is only reported."""

import json

import numpy as np
import pytest
from changed_patches import brighter, join
from measured import measure_table
from real_patches import as_jpeg, read_patches
from scipy.ndimage import gaussian_filter

from ml_core.audit.checks.file_order import measure_order
from ml_core.audit.checks.shortcuts import CUES, check_shortcuts
from ml_core.data.layout import load_labels, split_paths
from ml_core.data.patch_file import evenly_spaced


@pytest.fixture(scope="module")
def real(real_pcam):
    return read_patches(real_pcam, "train", evenly_spaced(20_000, 1200))


@pytest.fixture(scope="module")
def clean(real):
    return measure_table(*real)


def planted(real, change, label=1):
    """Return the table of the patches with `change` made to those of one class."""
    levels, labels = real
    levels = levels.copy()
    levels[labels == label] = change(levels[labels == label])
    return measure_table(levels, labels)


def blurred(levels, sigma=0.6):
    smooth = gaussian_filter(levels.astype(np.float32), (0, sigma, sigma, 0))
    return smooth.round().astype(np.uint8)


def judged(patches):
    return {
        finding.id: finding for finding in check_shortcuts(patches) if finding.severity != "info"
    }


def aucs(patches):
    table = check_shortcuts(patches)[-1].facts["table"]
    return {line["property"]: line["auc"] for line in table}


def test_what_real_patches_show_is_a_fact_and_no_warning(real_pcam, clean):
    of_splits = [
        measure_table(*read_patches(real_pcam, split, evenly_spaced(1500, 500)), split)
        for split in ("valid", "test")
    ]
    findings = check_shortcuts(join(clean, *of_splits))
    assert [finding.id for finding in findings] == ["file-order", "shortcuts-measured"]
    table = findings[-1].facts["table"]
    assert len(table) == 3 * (len(CUES) + 2)
    for line in table:
        assert 0 <= line["low"] <= line["auc"] <= line["high"] <= 1
    assert 0.75 < aucs(clean)["mean-colour"] < 0.88  # tumour is bluer than what surrounds it
    for finding in findings:
        json.dumps(dict(finding.facts), allow_nan=False)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_stored_as_a_worse_jpeg_is_found(real, label):
    found = judged(planted(real, lambda levels: as_jpeg(levels, 30), label))
    finding = found["shortcut-blockiness"]
    assert finding.severity in ("warning", "error") and finding.split == "train"
    assert "strength of its JPEG grid alone with AUC 0.9" in finding.message
    assert not finding.exclude and len(finding.examples) == 4


def test_a_label_that_the_jpeg_grid_gives_away_wholly_is_an_error(clean):
    rng = np.random.default_rng(0)
    grid = 1 + 0.5 * clean["label"] + 0.05 * rng.standard_normal(len(clean))
    assert judged(clean.assign(blockiness=grid))["shortcut-blockiness"].severity == "error"


def test_a_blurred_class_is_found(real):
    assert judged(planted(real, blurred))["shortcut-focus"].severity == "warning"


def test_a_colour_cast_is_found(real):
    found = judged(planted(real, lambda levels: brighter(levels, (10, 0, -10))))
    assert {"shortcut-mean-colour", "shortcut-colour-statistics"} <= set(found)
    faint = judged(planted(real, lambda levels: brighter(levels, (5, 0, -5))))
    assert set(faint) == {"shortcut-colour-statistics"}
    assert faint["shortcut-colour-statistics"].severity == "warning"


def reordered(clean, order):
    return clean.iloc[order].reset_index(drop=True)


def test_a_file_sorted_by_class_is_found(clean):
    found = judged(reordered(clean, np.argsort(clean["label"].to_numpy(), kind="stable")))
    assert list(found) == ["shortcut-file-order"]
    finding = found["shortcut-file-order"]
    assert finding.severity == "warning" and "in 2 stretches of one label" in finding.message
    assert "0.0 % tumour in the first tenth" in finding.message
    assert "Shuffled training is not harmed; the first N rows are no fair sample" in finding.action


@pytest.mark.parametrize("length", [16, 64, 200])
def test_stretches_of_one_class_are_found(clean, length):
    labels = np.arange(1200) // length % 2
    found = judged(clean.iloc[:1200].assign(label=labels))
    assert "shortcut-file-order" in found


def test_a_class_that_grows_commoner_down_the_file_is_found(clean):
    rng = np.random.default_rng(0)
    labels = (rng.random(len(clean)) < np.linspace(0, 1, len(clean))).astype(int)
    finding = judged(clean.assign(label=labels))["shortcut-file-order"]
    assert "the row number gives the label away" in finding.message


def test_a_shuffled_file_says_nothing_of_order(clean):
    shuffled = reordered(clean, np.random.default_rng(0).permutation(len(clean)))
    assert [finding.id for finding in check_shortcuts(shuffled)] == ["shortcuts-measured"]
    assert abs(aucs(shuffled)["neighbours"] - 0.5) < 0.06
    assert abs(aucs(shuffled)["row-number"] - 0.5) < 0.06


def test_the_order_of_the_real_files_is_reported_and_no_warning(real_pcam):
    for split, auc in {"train": 0.90, "valid": 0.94, "test": 0.94}.items():
        order = measure_order(load_labels(split_paths(real_pcam, split).y))
        assert order.neighbours.auc == pytest.approx(auc, abs=0.01)
        assert not order.gives_label_away
        assert order.num_runs < 0.45 * order.expected_runs


@pytest.mark.parametrize("pattern", [[0, 1], [0, 0, 1], [0, 0, 1, 1]])
def test_labels_that_alternate_are_known_and_harmless(clean, pattern):
    labels = np.resize(pattern, len(clean))
    assert measure_order(labels).neighbours.auc > 0.99
    findings = check_shortcuts(clean.assign(label=labels))
    assert [finding.id for finding in findings] == ["file-order", "shortcuts-measured"]


def test_runs_are_counted_as_by_hand():
    order = measure_order(np.array([0, 0, 1, 1, 1, 0, 1, 0, 0, 0]))
    assert (order.num_runs, order.longest_run) == (5, 3)
    assert order.expected_runs == pytest.approx(1 + 2 * 4 * 6 / 10)
    assert order.tumour_share == 0.4 and order.first_tenth_share == 0.0
    # tumour rows 2, 3, 4, 6 of 0..9: of the 24 pairs, 9 have the tumour behind the normal row
    assert order.row.auc == pytest.approx((2 + 2 + 2 + 3) / 24)


def test_repeats_of_a_patch_are_not_learned_by_heart(clean):
    """Nothing predicts a label that is drawn at random for each of 40 patches, 30 times there."""
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.permutation(np.arange(40) % 2), 30)
    repeated = clean.iloc[np.repeat(np.arange(40), 30)].assign(label=labels)
    repeated = reordered(repeated, rng.permutation(1200))
    assert aucs(repeated)["colour-statistics"] < 0.75
    unique = repeated.assign(content_hash=[str(i) for i in range(1200)])
    assert aucs(unique)["colour-statistics"] > 0.95


def test_few_patches_are_measured_and_not_judged(clean):
    labels = np.sort(np.arange(40) % 2)
    few = clean.iloc[:40].assign(label=labels, blockiness=labels.astype(np.float32))
    findings = check_shortcuts(few)
    assert [finding.id for finding in findings] == ["shortcuts-measured"]
    assert aucs(few)["blockiness"] == 1


@pytest.mark.parametrize("num", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("label", [-1, 0, None])
def test_tables_of_next_to_nothing_are_no_trouble(num, label, recwarn):
    levels = np.full((max(num, 1), 96, 96, 3), 200, np.uint8)  # all patches the same
    labels = np.arange(len(levels)) % 2 if label is None else np.full(len(levels), label)
    patches = measure_table(levels, labels).assign(focus=np.nan).iloc[:num]
    findings = check_shortcuts(patches)
    if label is None and num > 1:
        table = findings[-1].facts["table"]
        assert {line["auc"] for line in table if line["property"] in {"focus", "blockiness"}} == {
            0.5
        }
    else:
        assert findings == []
    json.dumps([dict(finding.facts) for finding in findings], allow_nan=False)
    assert len(recwarn) == 0


def test_patches_without_a_label_are_left_out(clean):
    partly = clean.assign(label=clean["label"].where(np.arange(len(clean)) % 3 > 0, -1))
    labelled = check_shortcuts(reordered(clean, np.flatnonzero(partly["label"] >= 0)))
    assert check_shortcuts(partly) == labelled


def test_columns_that_were_not_measured_are_left_out(clean):
    table = check_shortcuts(clean.drop(columns=["focus", "blockiness"]))[-1].facts["table"]
    assert {line["property"] for line in table}.isdisjoint({"focus", "blockiness"})
