import hashlib
import io

import numpy as np
import pytest
from measured import measure_table
from PIL import Image, ImageFilter

from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import STAINS, is_constant, measure_pixels


def random_patches(num=5, height=96, width=96, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def plain(colour, height=96, width=96):
    return np.broadcast_to(np.uint8(colour), (1, height, width, 3)).copy()


def measure(levels):
    return measure_pixels(Block(levels))


def value(levels, name):
    (only,) = measure(levels)[name]
    return only


@pytest.mark.parametrize("size", [(96, 96), (64, 48), (33, 32)])
def test_colours_are_those_numpy_finds_pixel_by_pixel(size):
    levels = random_patches(5, *size)
    found = measure(levels)
    pixels = levels.reshape(5, -1, 3).astype(float)
    for c, channel in enumerate("rgb"):
        np.testing.assert_array_equal(found[f"min_{channel}"], pixels[:, :, c].min(axis=1))
        np.testing.assert_array_equal(found[f"max_{channel}"], pixels[:, :, c].max(axis=1))
        np.testing.assert_allclose(found[f"mean_{channel}"], pixels[:, :, c].mean(axis=1), 1e-6)
        np.testing.assert_allclose(found[f"std_{channel}"], pixels[:, :, c].std(axis=1), 1e-6)
    np.testing.assert_allclose(found["std"], pixels.reshape(5, -1).std(axis=1), rtol=1e-6)
    luma = pixels @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found["std_luma"], luma.std(axis=1), rtol=1e-4)


def test_the_content_hash_is_of_the_levels_row_by_row():
    levels = random_patches(2)
    expected = [hashlib.sha256(patch.tobytes()).hexdigest()[:32] for patch in levels]
    assert measure(levels)["content_hash"].tolist() == expected


def test_a_patch_of_one_colour_has_no_deviation_at_all():
    for colour in [(0, 0, 0), (255, 255, 255), (201, 133, 77)]:
        assert value(plain(colour), "std_luma") == pytest.approx(0, abs=1e-4)
        assert [value(plain(colour), f"std_{c}") for c in "rgb"] == [0, 0, 0]
        assert value(plain(colour), "flat_share") == 1
        assert value(plain(colour), "blockiness") == 1
        assert value(plain(colour), "focus") == 0


def test_black_white_and_saturated_pixels_are_counted():
    levels = plain((120, 60, 130))
    levels[0, :24] = 5  # a quarter black
    levels[0, 24:36] = 250  # an eighth white
    levels[0, 36:42, :, 0] = 255  # a sixteenth with one of three values at an end
    assert value(levels, "share_black") == 0.25
    assert value(levels, "share_white") == 0.125
    assert value(levels, "share_saturated") == pytest.approx(1 / 48)


def test_pixels_of_which_one_channel_is_dark_are_not_black():
    levels = plain((5, 5, 6))
    levels[0, 0, 0] = 0
    assert value(levels, "share_black") == pytest.approx(1 / 96**2)


def test_tissue_is_what_is_darker_than_an_optical_density_of_0_15():
    levels = plain((220, 220, 220))  # exp(-0.15) * 255 is 219.48
    levels[0, :48] = 219
    assert value(levels, "tissue_share") == 0.5


@pytest.mark.parametrize("stain", STAINS)
def test_a_pure_stain_is_measured_as_one_unit_of_it_and_none_of_the_other(stain):
    density = np.array(STAINS[stain])
    colour = np.rint(256 * 10**-density - 1)
    amounts = {name: value(plain(colour), name) for name in STAINS}
    assert amounts.pop(stain) == pytest.approx(1, abs=0.03)
    assert next(iter(amounts.values())) == pytest.approx(0, abs=0.03)


def test_blur_lowers_the_focus_and_jpeg_raises_the_blockiness():
    sharp = random_patches(1)
    smooth = np.asarray(Image.fromarray(sharp[0]).filter(ImageFilter.GaussianBlur(1)))
    blurred = np.asarray(Image.fromarray(smooth).filter(ImageFilter.GaussianBlur(2)))
    assert value(blurred[None], "focus") < 0.1 * value(smooth[None], "focus")
    encoded = io.BytesIO()
    Image.fromarray(smooth).save(encoded, "JPEG", quality=8)
    assert value(smooth[None], "blockiness") == pytest.approx(1, abs=0.05)
    assert value(np.asarray(Image.open(encoded))[None], "blockiness") > 1.5


def test_blockiness_is_the_step_at_the_border_over_that_inside():
    ramp = np.arange(96) % 2 * 2  # steps of 2 everywhere, across and down
    levels = (100 + ramp[None, :] + ramp[:, None]).astype(np.uint8)
    assert value(np.repeat(levels[None, ..., None], 3, axis=3), "blockiness") == pytest.approx(1)
    stairs = np.repeat((np.arange(96) // 8 * 10)[None, :], 96, axis=0)
    stairs = stairs + np.arange(96)[None, :] % 2  # 10 or so at a border, 1 elsewhere
    stairs = np.repeat(stairs[None, ..., None], 3, axis=3).astype(np.uint8)
    found = value(stairs, "blockiness")
    # across: 11 borders of 9 (from odd to even), 84 steps of 1; down: no step at all
    assert found == pytest.approx((11 * 9 / 22) / (84 / 168), rel=1e-4)


def test_padding_shows_as_rows_or_columns_without_change():
    levels = random_patches(1)
    levels[0, :, 60:] = 255  # 36 of 96 columns
    assert value(levels, "flat_share") == pytest.approx(36 / 96)
    assert value(levels.transpose(0, 2, 1, 3), "flat_share") == pytest.approx(36 / 96)


def test_a_block_gives_what_its_patches_give_alone():
    levels = random_patches(7)
    together = measure(levels)
    for i in range(7):
        for name, values in measure(levels[i : i + 1]).items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values[0], together[name][i], rtol=1e-4)
            else:
                assert values[0] == together[name][i]


def test_a_patch_is_constant_only_when_no_channel_varies():
    levels = np.concatenate([plain((9, 9, 9)), plain((200, 30, 40)), plain((200, 30, 40))])
    levels[2, 0, 0, 1] += 1
    assert is_constant(measure_table(levels)).tolist() == [True, True, False]
