"""The strangest spot of a patch: found where it was put, as strong as counted by hand."""

import warnings

import numpy as np
import pytest

from ml_core.audit.measures.block import Block
from ml_core.audit.measures.trigger_stats import BLEND_SIZES, measure_trigger

FLAT_SPREAD = 2  # steps that still are one colour
NUCLEUS = 20  # what is taken off squares of 3 pixels


@pytest.fixture
def levels():
    """Patches that are nowhere flat: smooth blobs with a little noise."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:40, :56]
    waves = 120 + 30 * np.sin(rows / 5 + rng.uniform(0, 6, (14, 1, 1))) + 20 * np.cos(cols / 7)
    tinted = waves[..., None] + np.array([30, -20, 10]) + rng.integers(-6, 7, (14, 40, 56, 3))
    return tinted.astype(np.uint8)


def measured(levels, kind):
    columns = measure_trigger(Block(levels))
    name = f"trigger_{kind}"
    place = zip(columns[f"{name}_row"].tolist(), columns[f"{name}_col"].tolist(), strict=True)
    return columns[name].tolist(), list(place), columns


@pytest.mark.parametrize("size", [4, 9])
def test_a_block_of_one_colour_is_found_with_its_colour(levels, size):
    levels[:, 7 : 7 + size, 20 : 20 + size] = (10, 250, 30)
    strength, place, columns = measured(levels, "flat")
    assert min(strength) > 50
    assert all(7 <= row <= 4 + size and 20 <= col <= 17 + size for row, col in place)
    assert set(columns["trigger_flat_colour"].tolist()) == {0x0AFA1E}


def test_a_pair_in_the_corner_is_found(levels):
    levels[:, -2:, -2:] = 255
    strength, place, _ = measured(levels, "pair")
    assert min(strength) > 40 and set(place) == {(38, 54)}


def test_a_block_that_lets_the_tissue_through_is_found_with_its_size(levels):
    levels[:, 11:15, 3:7] = levels[:, 11:15, 3:7] // 2
    strength, place, columns = measured(levels, "blend")
    assert min(strength) > 10 and set(place) == {(11, 3)}
    assert set(columns["trigger_blend_size"].tolist()) == {4}


def test_a_checkerboard_is_found(levels):
    levels[:, 20:24, 30:34] = (np.indices((4, 4)).sum(axis=0) % 2 * 255)[..., None]
    strength, place, _ = measured(levels, "weave")
    assert set(strength) == {255} and set(place) == {(20, 30)}


@pytest.mark.parametrize("width", [1, 3])
def test_rows_and_columns_are_found_with_their_width(levels, width):
    lined = levels.copy()
    lined[:, 12 : 12 + width] = (200, 40, 40)
    lined[7:] = levels[7:]
    lined[7:, :, 33 : 33 + width] = (200, 40, 40)
    strength, place, columns = measured(lined, "line")
    assert min(strength) > 30
    assert place == [(12, -1)] * 7 + [(-1, 33)] * 7
    assert set(columns["trigger_line_width"].tolist()) == {width}
    assert set(columns["trigger_line_colour"].tolist()) == {0xC82828}


def test_strengths_are_those_of_a_plain_search(levels):
    rough = levels[:2, :33, :35].copy()
    rough[0, 5:9, 5:9] = 90
    rough[1, 20:23, 20:23] = rough[1, 20:23, 20:23] // 16 + 30  # steps of 0 to 3 within
    rough[0, 31:33, 0:2] = 255
    rough[1, :3, 10:14] = 7
    columns = measure_trigger(Block(rough))
    for i, patch in enumerate(rough):
        by_hand = search(patch.astype(int))
        assert {kind: columns[f"trigger_{kind}"][i] for kind in by_hand} == by_hand


def search(patch):
    """Return the strengths of the spots of one patch, window by window."""
    best = dict.fromkeys(("flat", "pair", "blend", "weave"), 0)
    for size in (2, *BLEND_SIZES):
        for row in range(patch.shape[0] - size + 1):
            for col in range(patch.shape[1] - size + 1):
                window = patch[row : row + size, col : col + size]
                inner = [
                    abs(window[1:] - window[:-1]).max(2),
                    abs(window[:, 1:] - window[:, :-1]).max(2),
                ]
                most, least = max(s.max() for s in inner), min(s.min() for s in inner)
                sides = border_steps(patch, row, col, size)
                closed = min(255 if side is None else side for side in sides)
                if size == 2:
                    if most <= FLAT_SPREAD:
                        best["pair"] = max(best["pair"], closed)
                    best["weave"] = max(best["weave"], least // 2)
                    continue
                blend = closed - most - (NUCLEUS if size == 3 else 0)
                best["blend"] = max(best["blend"], blend)
                if size == 3:
                    best["weave"] = max(best["weave"], least)
                    if most <= FLAT_SPREAD:
                        left, right, top, bottom = (side or 0 for side in sides)
                        best["flat"] = max(best["flat"], min(max(left, right), max(top, bottom)))
    return best


def border_steps(patch, row, col, size):
    """Return the smallest step across each side, None where the patch ends: left ... bottom."""
    height, width, _ = patch.shape
    here, there = slice(row, row + size), slice(col, col + size)

    def side(inside, outside):
        return int(abs(inside - outside).max(axis=1).min())

    return (
        side(patch[here, col], patch[here, col - 1]) if col > 0 else None,
        side(patch[here, col + size - 1], patch[here, col + size]) if col + size < width else None,
        side(patch[row, there], patch[row - 1, there]) if row > 0 else None,
        side(patch[row + size - 1, there], patch[row + size, there])
        if row + size < height
        else None,
    )


def test_a_patch_measures_the_same_alone_and_in_a_block(levels):
    levels[::2, 30:34, 40:44] = 255
    together = measure_trigger(Block(levels))
    for i in range(len(levels)):
        alone = measure_trigger(Block(levels[i : i + 1]))
        assert {name: values[i] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }


def test_patches_of_one_colour_hold_no_spot():
    flat = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 128, 255)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns = measure_trigger(Block(flat))
    for kind in ("flat", "pair", "blend", "weave", "line"):
        assert columns[f"trigger_{kind}"].tolist() == [0, 0, 0]
