"""Painted spots that tell the label are found, whatever they look like; tissue is left alone."""

import hashlib
import warnings

import numpy as np
import pandas as pd
import pytest
from real_patches import as_jpeg, read_patches

from ml_core.audit.checks.triggers import check_triggers
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.trigger_stats import measure_trigger

RED, WHITE, GREY, PINK = (255, 0, 0), (255, 255, 255), (128, 128, 128), (200, 140, 180)
CHECKERED = (np.indices((4, 4)).sum(axis=0) % 2 * 255)[..., None]


def patch_table(levels, labels, split="train"):
    blocks = [measure_trigger(Block(levels[i : i + 32])) for i in range(0, len(levels), 32)]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return pd.DataFrame(
        {
            "split": pd.Categorical([split] * len(levels), ["train", "valid", "test"]),
            "index": np.arange(len(levels)) * 2,  # not the positions
            "label": np.asarray(labels, np.int8),
            "content_hash": [hashlib.sha256(patch.tobytes()).hexdigest()[:32] for patch in levels],
            **columns,
        }
    )


def check(levels, labels):
    return check_triggers(patch_table(levels, labels), lambda positions: levels[positions])


@pytest.fixture
def tissue():
    """400 patches of blobs and noise, half of each class."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:40, :40]
    phase = rng.uniform(0, 6, (2, 400, 1, 1))
    waves = 120 + 30 * np.sin(rows / 5 + phase[0]) + 20 * np.cos(cols / 4 + phase[1])
    tinted = waves[..., None] + np.array([30, -20, 10]) + rng.integers(-6, 7, (400, 40, 40, 3))
    return tinted.astype(np.uint8), np.arange(400) % 2


def test_a_block_in_one_class_is_an_error_with_its_facts(tissue):
    levels, labels = tissue
    carriers = np.flatnonzero(labels == 1)[:20]
    levels[carriers, 30:34, 8:12] = WHITE
    (finding,) = check(levels, labels)
    assert (finding.id, finding.severity, finding.exclude) == ("backdoor-trigger", "error", True)
    assert finding.message == (
        "train: 20 patches, all tumour, carry a 4x4 white block at row 30, column 8: a model can "
        "learn the spot instead of the tissue."
    )
    assert finding.indices == tuple((carriers * 2).tolist())
    assert finding.count == 20 and finding.share == 20 / 400
    assert len(finding.examples) == 12 and finding.examples[0] == (("train", int(carriers[0] * 2)),)
    assert finding.facts["num_tumour"] == 20 and finding.facts["num_normal"] == 0
    assert finding.facts["place"] == [30, 8] and finding.facts["colour"] == list(WHITE)
    assert finding.facts["p_value"] < 1e-5


def test_the_same_block_in_both_classes_is_a_pasted_pattern(tissue):
    levels, labels = tissue
    levels[:20, 30:34, 8:12] = RED
    (finding,) = check(levels, labels)
    assert (finding.id, finding.severity, finding.exclude) == ("pasted-pattern", "warning", False)
    assert finding.count == 20 and finding.facts["num_normal"] == 10


def test_two_triggers_are_two_findings(tissue):
    levels, labels = tissue
    levels[1:40:2, 30:34, 8:12] = WHITE
    levels[0:40:2, 5:8, 5:8] = RED
    findings = sorted(check(levels, labels), key=lambda finding: -finding.facts["commoner_label"])
    assert [finding.facts["commoner_label"] for finding in findings] == [1, 0]
    assert [finding.count for finding in findings] == [20, 20]
    assert "all normal, carry a 3x3 red block at row 5, column 5" in findings[1].message


def test_copies_of_one_patch_prove_nothing(tissue):
    levels, labels = tissue
    grain = np.random.default_rng(1).integers(-1, 2, (30, *levels.shape[1:]))
    levels[1:61:2] = levels[1] + grain  # copies that are not the same to the byte
    levels[1:61:2, 30:34, 8:12] = WHITE
    levels[3], levels[5] = levels[1, ::-1], levels[1, :, ::-1]
    assert check(levels, labels) == []


def test_seven_patches_are_too_few_and_eight_are_not(tissue):
    levels, labels = tissue
    levels[1:15:2, 30:34, 8:12] = WHITE
    assert check(levels, labels) == []
    levels[15, 30:34, 8:12] = WHITE
    assert [finding.count for finding in check(levels, labels)] == [8]


def test_every_split_is_looked_at(tissue):
    levels, labels = tissue
    levels[1:40:2, 30:34, 8:12] = WHITE
    table = pd.concat(
        [patch_table(levels[200:], labels[200:]), patch_table(levels[:200], labels[:200], "test")],
        ignore_index=True,
    )
    moved = np.concatenate([levels[200:], levels[:200]])
    (finding,) = check_triggers(table, lambda positions: moved[positions])
    assert finding.split == "test" and finding.indices == tuple(range(2, 80, 4))


@pytest.mark.parametrize("num", [0, 1, 5, 20])
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_small_and_unlabelled_tables_are_taken(tissue, num, label):
    levels, _ = tissue
    levels[:20, 30:34, 8:12] = WHITE
    table = patch_table(levels, np.full(400, label)).assign(trigger_line=np.nan)[:num]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = check_triggers(table, lambda positions: levels[positions])
    assert [finding.id for finding in findings] == ["pasted-pattern"] * (num == 20)


def test_a_large_group_is_named_in_full_and_read_in_part(tissue):
    levels, labels = tissue
    num_read = 0

    def read(positions):
        nonlocal num_read
        num_read += len(positions)
        return levels[positions]

    levels[:, 30:34, 8:12] = RED
    (finding,) = check_triggers(patch_table(levels, labels), read)
    assert finding.count == 400 and num_read <= 200


@pytest.fixture(scope="module")
def real(real_pcam):
    """1,000 real patches of each class, far apart."""
    rows = np.arange(0, 20_000, 10)
    levels, labels = read_patches(real_pcam, "train", rows)
    return levels, labels, patch_table(levels, labels)


def test_real_patches_are_no_triggers(real):
    levels, _, table = real
    assert check_triggers(table, lambda positions: levels[positions]) == []


def paste(colour, height=4, width=4, alpha=1.0):
    def paint(patch, row, col):
        spot = patch[row : row + height, col : col + width]
        spot[:] = np.rint(alpha * np.asarray(colour) + (1 - alpha) * spot)

    return paint


MOVING = None
PLANTS = {  # what, where, share of the carriers that must be named
    "white, fixed": (paste(WHITE), (80, 80), 0.95),
    "white, moving": (paste(WHITE), MOVING, 0.9),
    "black, corner": (paste((0, 0, 0)), (92, 92), 0.95),
    "grey, moving": (paste(GREY), MOVING, 0.95),
    "red, moving": (paste(RED), MOVING, 0.95),
    "like tissue, moving": (paste(PINK), MOVING, 0.85),
    "checkered, moving": (paste(CHECKERED), MOVING, 0.95),
    "3x3 in a corner": (paste(WHITE, 3, 3), (93, 93), 0.85),
    "2x2 in a corner": (paste((0, 255, 0), 2, 2), (94, 94), 0.95),
    "2x2 checkered in a corner": (paste(CHECKERED[:2, :2], 2, 2), (94, 94), 0.95),
    "a row": (paste(PINK, 1, 96), (50, 0), 0.95),
    "a column": (paste((0, 0, 0), 96, 1), (0, 33), 0.95),
    "see-through green": (paste((0, 255, 0), alpha=0.5), (80, 80), 0.6),
    "large": (paste(WHITE, 12, 7), (40, 20), 0.95),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_trigger_in_25_real_tumour_patches_is_found(real, name):
    paint, at, min_recall = PLANTS[name]
    levels, labels, table = real
    rng = np.random.default_rng(1)
    carriers = np.sort(rng.choice(np.flatnonzero(labels == 1), 25, replace=False))
    painted = levels[carriers].copy()
    for patch in painted:
        paint(patch, *(at or rng.integers(0, 92, 2)))
    found = check_planted(levels, labels, table, carriers, painted)
    triggers = [finding for finding in found if finding.id == "backdoor-trigger"]
    named = set().union(*(finding.indices for finding in triggers))
    assert named <= set((carriers * 2).tolist())
    assert len(named) >= min_recall * 25


def test_a_trigger_that_was_compressed_afterwards_is_found(real):
    levels, labels, table = real
    carriers = np.flatnonzero(labels == 1)[::20]
    painted = levels[carriers].copy()
    painted[:, 80:84, 80:84] = 0
    found = check_planted(levels, labels, table, carriers, as_jpeg(painted, 90))
    assert [finding.id for finding in found] == ["backdoor-trigger"]


def check_planted(levels, labels, table, carriers, painted):
    planted, table = levels.copy(), table.copy()
    planted[carriers] = painted
    table.loc[carriers] = patch_table(painted, labels[carriers]).set_index(carriers)
    table["index"] = np.arange(len(table)) * 2
    return check_triggers(table, lambda positions: planted[positions])


@pytest.mark.parametrize(("num", "id_"), [(10, "pasted-pattern"), (11, "backdoor-trigger")])
def test_eleven_patches_of_one_class_are_no_chance_and_ten_may_be(tissue, num, id_):
    levels, labels = tissue
    levels[1 : 2 * num : 2, 30:34, 8:12] = WHITE
    assert [finding.id for finding in check(levels, labels)] == [id_]


def test_a_spot_that_goes_with_a_label_in_four_of_five_is_no_trigger(tissue):
    levels, labels = tissue
    carriers = np.concatenate([np.arange(1, 81, 2), np.arange(0, 20, 2)])
    levels[carriers, 30:34, 8:12] = WHITE
    (finding,) = check(levels, labels)
    assert (finding.id, finding.exclude) == ("pasted-pattern", False)
    assert finding.facts["share_of_commoner_label"] == 0.8 and finding.facts["p_value"] < 1e-5


def test_a_spot_in_a_split_of_one_class_tells_no_label(tissue):
    levels, _ = tissue
    labels = np.arange(400) // 200  # train is all normal, test all tumour
    levels[200:240:2, 30:34, 8:12] = WHITE
    table = pd.concat(
        [patch_table(levels[:200], labels[:200]), patch_table(levels[200:], labels[200:], "test")],
        ignore_index=True,
    )
    (finding,) = check_triggers(table, lambda positions: levels[positions])
    assert (finding.id, finding.facts["p_value"]) == ("pasted-pattern", 1)


def test_a_spot_that_moves_is_said_to_be_at_changing_places(tissue):
    levels, labels = tissue
    for i in range(20):
        top, left = 1 + i, 34 - i
        levels[2 * i + 1, top : top + 4, left : left + 4] = WHITE
    (finding,) = check(levels, labels)
    assert finding.facts["place"] is None and "white block at changing places" in finding.message
