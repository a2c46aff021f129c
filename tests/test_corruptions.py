"""Each corruption does to a patch what its name and strength say, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from real_patches import as_jpeg, read_patches
from scipy.ndimage import gaussian_filter

from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import measure_pixels
from ml_core.evaluation.robustness.corruptions import CORRUPTIONS
from ml_core.evaluation.robustness.levels import rotate_hue, scale_brightness
from ml_core.evaluation.robustness.noise import add_noise
from ml_core.evaluation.slices.patch_facts import hue_of, patch_facts

BY_NAME = {each.name: each for each in CORRUPTIONS}
# Optical densities of one unit of stain; Ruifrok and Johnston 2001, in three digits.
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])


def random_patches(num=3, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (num, 96, 96, 3), dtype=np.uint8)


def stained_patches(num=4, seed=0):
    """Return patches of known tissue: smooth amounts of both stains, none of it near black."""
    rng = np.random.default_rng(seed)
    amounts = np.stack(
        [gaussian_filter(rng.random((num, 96, 96)), (0, 3, 3)) * scale for scale in (0.9, 0.7)], -1
    )
    return np.rint(256 * 10 ** -(amounts @ STAINS) - 1).astype(np.uint8)


def facts_of(patches):
    return patch_facts(pd.DataFrame(dict(measure_pixels(Block(patches)))))


def each_strength():
    return [
        pytest.param(each, strength, id=f"{each.name} {each.label(strength)}")
        for each in CORRUPTIONS
        for strength in each.strengths[1:]
    ]


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda each: each.name)
def test_the_first_strength_changes_no_bit_and_says_so(corruption):
    patches = random_patches()
    same = corruption.apply(patches, corruption.strengths[0])
    assert (same == patches).all() and same.dtype == np.uint8
    assert corruption.label(corruption.strengths[0]) == "untouched"


@pytest.mark.parametrize(("corruption", "strength"), each_strength())
def test_every_other_strength_changes_patches_and_neither_their_shape_nor_the_original(
    corruption, strength
):
    patches = random_patches(2, 60, 200)
    kept = patches.copy()
    changed = corruption.apply(patches, strength)
    assert changed.shape == patches.shape and changed.dtype == np.uint8
    assert changed.flags.c_contiguous
    assert (changed != patches).any(axis=(1, 2, 3)).all()
    assert (patches == kept).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda each: each.name)
def test_what_is_done_to_a_patch_does_not_depend_on_its_batch(corruption):
    patches = random_patches(4, seed=1)
    strength = corruption.strengths[-1]
    alone = np.concatenate([corruption.apply(patches[i : i + 1], strength) for i in (3, 1)])
    assert (corruption.apply(patches, strength)[[3, 1]] == alone).all()


def test_strengths_go_from_mild_to_severe():
    for each in CORRUPTIONS[2:]:
        untouched, *others = each.strengths
        as_ratio = each.unit == "factor"
        distances = [abs(np.log(s / untouched) if as_ratio else s - untouched) for s in others]
        for sign in (1, -1):  # each side by itself
            side = [d for d, s in zip(distances, others, strict=True) if sign * (s - untouched) > 0]
            assert side == sorted(set(side)), each.name
        assert len(set(each.strengths)) == len(each.strengths)


def test_four_quarter_turns_are_none_and_one_goes_counterclockwise():
    patches, turn = random_patches(), BY_NAME["rotation"]
    turned = patches
    for _ in range(4):
        turned = turn.apply(turned, 90)
    assert (turned == patches).all()
    once = turn.apply(patches, 90)
    assert (once[:, 0, 0] == patches[:, 0, -1]).all()  # what was top right is top left
    assert (turn.apply(once, 180) == turn.apply(patches, 270)).all()


def test_flips_mirror_the_way_they_are_called_and_twice_is_none():
    patches, flip = random_patches(), BY_NAME["flip"]
    ways = {flip.label(strength): strength for strength in flip.strengths[1:]}
    assert (flip.apply(patches, ways["left-right"])[:, :, 0] == patches[:, :, -1]).all()
    assert (flip.apply(patches, ways["up-down"])[:, 0] == patches[:, -1]).all()
    for way in ways.values():
        assert (flip.apply(flip.apply(patches, way), way) == patches).all()
    both = flip.apply(flip.apply(patches, 1), 2)
    assert (both == BY_NAME["rotation"].apply(patches, 180)).all()


@pytest.mark.parametrize("sigma", BY_NAME["blur"].strengths[1:])
def test_a_blurred_point_is_the_gaussian(sigma):
    point = np.zeros((1, 96, 96, 3), np.uint8)
    point[0, 40, 50] = 255
    offsets = np.arange(96)
    down, across = (np.exp(-((offsets - at) ** 2) / (2 * sigma**2)) for at in (40, 50))
    expected = 255 * np.outer(down / down.sum(), across / across.sum())
    blurred = BY_NAME["blur"].apply(point, sigma)[0]
    assert np.abs(blurred - expected[..., None]).max() <= 0.52  # half a level of rounding


@pytest.mark.parametrize("sigma", [0.5, 3])
def test_blur_is_scipys_up_to_the_edges(sigma):
    patches = random_patches(2)
    theirs = gaussian_filter(patches.astype(np.float64), (0, sigma, sigma, 0), mode="reflect")
    assert np.abs(BY_NAME["blur"].apply(patches, sigma) - theirs).max() < 0.51


@pytest.mark.parametrize("quality", BY_NAME["jpeg"].strengths[1:])
def test_jpeg_is_what_pillow_reads_back(quality):
    patches = stained_patches()
    assert (BY_NAME["jpeg"].apply(patches, quality) == as_jpeg(patches, int(quality))).all()


def test_brightness_multiplies_every_level_and_cuts_off_at_white():
    levels = np.array([0, 10, 101, 200, 255], np.uint8).reshape(1, 1, 5, 1).repeat(3, axis=3)
    assert scale_brightness(levels, 0.75)[0, 0, :, 0].tolist() == [0, 8, 76, 150, 191]
    assert scale_brightness(levels, 1.4)[0, 0, :, 0].tolist() == [0, 14, 141, 255, 255]


@pytest.mark.parametrize("factor", [0.6, 0.8, 1.25, 1.6])
def test_contrast_scales_the_deviation_and_keeps_the_mean_colour(factor):
    patches = random_patches(3, 90, 150)
    patches[..., 0] += 20
    changed = BY_NAME["contrast"].apply(patches, factor)
    assert changed.std(axis=(1, 2)) == pytest.approx(factor * patches.std(axis=(1, 2)), rel=0.002)
    assert changed.mean(axis=(1, 2)) == pytest.approx(patches.mean(axis=(1, 2)), abs=0.15)


def test_a_third_of_a_turn_of_hue_swaps_the_channels_and_grey_stays_grey():
    patches = random_patches()
    turned = rotate_hue(patches, 120)  # red becomes green, green blue, blue red
    assert (turned[..., [1, 2, 0]] == patches).all()
    grey = np.repeat(random_patches()[..., :1], 3, axis=3)
    assert (rotate_hue(grey, -40) == grey).all()


@pytest.mark.parametrize("degrees", [-40, -20, -10, 10, 20, 40])
def test_hue_turns_the_hue_of_the_mean_colour_by_as_many_degrees(degrees):
    patches = stained_patches()
    before, after = (
        hue_of(*each.mean(axis=(1, 2)).T) for each in (patches, rotate_hue(patches, degrees))
    )
    assert after - before == pytest.approx(degrees, abs=2)  # HSV's hue is a hexagon's, not a circle


@pytest.mark.parametrize("factor", [0.5, 0.65, 0.8, 1.25, 1.5, 2.0])
@pytest.mark.parametrize(("stain", "other"), [("haematoxylin", "eosin"), ("eosin", "haematoxylin")])
def test_a_stain_moves_by_as_much_as_it_says_and_the_other_does_not(stain, other, factor):
    patches = stained_patches()
    before, after = facts_of(patches), facts_of(BY_NAME[stain].apply(patches, factor))
    moved = after[stain] / before[stain]
    assert moved.to_numpy() == pytest.approx(factor, rel=0.02)
    assert (after[other] / before[other]).to_numpy() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("stain", ["haematoxylin", "eosin"])
def test_white_takes_no_stain(stain):
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    assert (BY_NAME[stain].apply(white, 2) == 255).all()


def test_noise_has_the_deviation_it_says_and_no_mean():
    grey = np.full((1, 96, 96, 3), 128, np.uint8)
    noise = add_noise(grey, 10).astype(float) - 128
    assert noise.std() == pytest.approx(10, rel=0.02)
    assert abs(noise.mean()) < 4 * 10 / np.sqrt(noise.size)
    neighbours = np.corrcoef(noise[0, :, :-1].ravel(), noise[0, :, 1:].ravel())[0, 1]
    channels = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert max(abs(neighbours), abs(channels)) < 0.04


def test_noise_is_another_on_another_patch_and_the_same_at_every_strength():
    patches = np.full((2, 96, 96, 3), 128, np.uint8)
    patches[1, 0, 0, 0] = 129
    weak, strong = (add_noise(patches, sigma).astype(float) - patches for sigma in (5, 20))
    assert abs(np.corrcoef(weak[0].ravel(), weak[1].ravel())[0, 1]) < 0.03
    assert np.corrcoef(weak[0].ravel(), strong[0].ravel())[0, 1] > 0.99


def test_on_real_patches_each_corruption_moves_its_fact_the_way_it_says(real_pcam):
    patches, _ = read_patches(real_pcam, "valid", np.arange(0, 1500, 40))
    medians = {
        each.name: [
            facts_of(each.apply(patches, strength))[each.fact].median()
            for strength in sorted(each.strengths)
        ]
        for each in CORRUPTIONS
        if each.fact is not None
    }
    for name in ("brightness", "contrast", "haematoxylin", "eosin", "hue", "noise"):
        assert medians[name] == sorted(medians[name]), name
    assert medians["blur"] == sorted(medians["blur"], reverse=True)
    assert medians["jpeg"][0] > 1.3 > medians["jpeg"][-1]  # quality 15 against untouched


def test_on_real_patches_a_stain_moves_by_what_it_says_but_for_what_black_and_white_cut_off(
    real_pcam,
):
    patches, _ = read_patches(real_pcam, "valid", np.arange(0, 1500, 40))
    before = facts_of(patches)
    for stain, other in (("haematoxylin", "eosin"), ("eosin", "haematoxylin")):
        for factor in (0.8, 1.25):
            after = facts_of(BY_NAME[stain].apply(patches, factor))
            moved = (after[stain] / before[stain])[before[stain] > 0.1]
            assert moved.median() == pytest.approx(factor, rel=0.03)
            assert (after[other] - before[other]).abs().median() < 0.01
