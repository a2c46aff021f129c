import h5py
import numpy as np
import pandas as pd
import pytest
from measured import measure_table

from ml_core.audit.checks.representation import check_representation
from ml_core.audit.reader import PatchReader
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile


def check(folder, splits, **options):
    """`splits`: patches as stored, with the levels they stand for."""
    files, tables = {}, []
    for split, (stored, levels) in splits.items():
        path = folder / f"{split}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=stored, **options)
        files[split] = PatchFile(path)
        tables.append(measure_table(levels, split=split))
    patches = pd.concat(tables, ignore_index=True)
    return {f.id: f for f in check_representation(files, patches, PatchReader(files, patches))}


@pytest.fixture(scope="module")
def real(real_pcam):
    with h5py.File(split_paths(real_pcam, "train").x) as file:
        return file["x"][::100]


def noise(num=8):
    return np.random.default_rng(0).integers(20, 230, (num, 96, 96, 3), dtype=np.uint8)


def test_flat_bytes_in_the_right_order_are_left_in_peace(tmp_path, real):
    assert check(tmp_path, {"train": (real, real), "valid": (real, real)}) == {}


def test_floats_are_bytes_wasted_and_splits_that_disagree_are_named(tmp_path):
    levels = noise()
    splits = {"train": (levels.astype(np.float32), levels), "valid": (levels, levels)}
    findings = check(tmp_path, splits)
    assert set(findings) == {"dtype-differs", "bytes-wasted"}
    assert findings["dtype-differs"].message == (
        "The splits are stored with different types: train float32, valid uint8."
    )
    wasted = findings["bytes-wasted"]
    assert wasted.split == "train"
    assert "float32 in 0..255, 0.9 MB; grey levels need one byte each, 0.2 MB" in wasted.message


def test_ranges_that_differ_are_named(tmp_path):
    levels = noise()
    splits = {"train": (levels / np.float32(255), levels), "valid": (levels * 1.0, levels)}
    message = check(tmp_path, splits)["range-differs"].message
    assert message.endswith("different value ranges: train 0..1, valid 0..255.")


def test_chunks_are_said_to_cost_what_they_cost(tmp_path):
    levels = noise(40)
    options = {"chunks": (16, 96, 96, 3), "compression": "gzip"}
    finding = check(tmp_path, {"train": (levels, levels)}, **options)["slow-layout"]
    assert "a shuffled batch of 64 reads and unpacks up to 1,024 patches" in finding.message
    assert "gzip" in finding.message and finding.severity == "warning"


def test_levels_clipped_to_0_and_255_are_an_error(tmp_path):
    levels = np.where(noise() > 120, 255, 0).astype(np.uint8)
    finding = check(tmp_path, {"train": (levels, levels)})["binarised"]
    assert finding.severity == "error" and "in 100 % of the patches" in finding.message


def test_floats_cast_to_bytes_without_scaling_are_an_error(tmp_path):
    levels = (noise() / 229).astype(np.uint8)
    assert check(tmp_path, {"train": (levels, levels)})["nearly-all-dark"].severity == "error"


def test_red_and_blue_swapped_show_in_real_patches(tmp_path, real):
    swapped = real[..., ::-1]
    finding = check(tmp_path, {"train": (real, real), "valid": (swapped, swapped)})["channel-order"]
    assert finding.split == "valid" and finding.severity == "warning" and finding.share > 0.8


def test_black_and_grey_patches_have_no_say_about_the_channel_order(tmp_path):
    black = np.zeros((60, 96, 96, 3), np.uint8)
    grey = np.repeat(noise(60)[..., :1], 3, axis=-1)
    for levels in (black, grey):
        assert check(tmp_path, {"train": (levels, levels)}) == {}


def test_too_few_patches_with_tissue_do_not_decide_the_channel_order(tmp_path, real):
    swapped = real[:20, ..., ::-1]
    assert check(tmp_path, {"train": (swapped, swapped)}) == {}


@pytest.mark.parametrize("colour", [0, 255])
def test_patches_of_one_colour_say_nothing_about_how_the_levels_were_scaled(tmp_path, colour):
    levels = noise()
    levels[:6] = colour
    assert check(tmp_path, {"train": (levels, levels)}) == {}


def test_a_few_clipped_or_dark_patches_and_many_with_some_clipping_are_no_fault(tmp_path):
    levels = noise()
    levels[:, :30] = 255  # a third of each
    levels[0] = np.where(levels[0] > 120, 255, 0)
    levels[1] = levels[1] // 50
    assert check(tmp_path, {"train": (levels, levels)}) == {}


def test_a_chunk_is_counted_no_larger_than_the_file_and_one_of_one_patch_is_a_note(tmp_path):
    levels = noise(10)
    large = {"chunks": (16, 96, 96, 3), "maxshape": (None, 96, 96, 3)}
    finding = check(tmp_path, {"train": (levels, levels)}, **large)["slow-layout"]
    assert "reads and unpacks up to 640 patches" in finding.message
    one = check(tmp_path, {"train": (levels, levels)}, chunks=(1, 96, 96, 3))["slow-layout"]
    assert one.severity == "info"
