"""The check before training: a sound split is described, anything else is refused."""

import hashlib
import json

import h5py
import numpy as np
import pytest
from tiny_pcam import write_split

from ml_core.data import PCAMDataset
from ml_core.data.checks import channel_stats, check_splits, hash_splits
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import evenly_spaced
from ml_core.errors import DataError

NUM = 30
LABELS = np.arange(NUM) % 2


@pytest.fixture
def patches():
    return np.random.default_rng(0).integers(1, 255, (NUM, 96, 96, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, patches):
    write_split(tmp_path, "train", patches, LABELS)
    write_split(tmp_path, "valid", patches[::-1], LABELS)
    return tmp_path


def rewrite_train(folder, patches, labels=LABELS):
    write_split(folder, "train", patches, labels)


def test_a_sound_data_set_is_described(folder):
    train, valid = check_splits(folder)
    assert (train.split, valid.split) == ("train", "valid")
    assert train.num_rows == train.num_patches == NUM and train.num_positive == NUM // 2
    assert (train.dtype, train.value_range, train.layout) == ("uint8", "0..255", "contiguous")
    assert train.shape == (96, 96, 3) and train.num_filtered == 0
    path = split_paths(folder, "train").x
    assert train.x_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert train.y_sha256 == valid.y_sha256
    assert json.loads(json.dumps(train.to_dict()))["x_path"] == str(path)


def test_the_record_counts_what_the_data_set_will_hold(folder, patches):
    patches[::3] = 0
    rewrite_train(folder, patches.astype(np.float32))
    for options in ({}, {"filter_data": True}, {"filter_data": True, "max_patches": 20}):
        record = check_splits(folder, **options)[0]
        paths = split_paths(folder, "train")
        subset = options.get("max_patches")
        dataset = PCAMDataset(
            paths.x, paths.y, filter_data=options.get("filter_data", False), subset=subset
        )
        assert record.num_patches == len(dataset)
        assert record.num_positive == dataset.labels.sum()
        assert record.num_filtered == (subset or NUM) - len(dataset)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "hold NaN or Inf"),
        (np.inf, "hold NaN or Inf"),
        (1e5, r"hold values outside 0\.\.255"),
    ],
)
def test_damaged_patches_are_refused_with_their_number_and_rows(folder, patches, value, said):
    stored = patches.astype(np.float32)
    stored[[4, 9], :5, :5] = value
    rewrite_train(folder, stored)
    with pytest.raises(DataError, match=rf"2 of 30 patches .*2 {said}, first at 4, 9") as error:
        check_splits(folder)
    assert "train_x.h5" in str(error.value)
    assert "filter_data: true" in str(error.value) and "all of these" in str(error.value)
    assert check_splits(folder, filter_data=True)[0].num_patches == NUM - 2


def test_damage_that_the_filter_does_not_drop_is_still_refused(folder, patches):
    stored = patches.astype(np.float32)
    stored[4, 0, 0, 0] = 5000  # hardly moves the mean
    stored[5] = np.nan
    rewrite_train(folder, stored)
    with pytest.raises(DataError, match=r"1 of these\. The other 1 must be mended"):
        check_splits(folder)
    with pytest.raises(DataError, match=r"1 of 30 .*first at 4\..* did not drop"):
        check_splits(folder, filter_data=True)


def test_damage_outside_the_subset_is_none_of_its_business(folder, patches):
    stored = patches.astype(np.float32)
    paths = split_paths(folder, "train")
    used = PCAMDataset(paths.x, paths.y, subset=15).indices
    stored[np.setdiff1d(np.arange(NUM), used)[3]] = np.nan
    rewrite_train(folder, stored)
    assert check_splits(folder, max_patches=15)[0].num_patches == 15


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_of_one_class_is_refused(folder, patches, split):
    write_split(folder, split, patches[:20], np.ones(20, int))
    with pytest.raises(DataError, match=f"all have label 1; {split} needs both"):
        check_splits(folder)


def test_a_test_split_of_one_class_is_allowed(folder, patches):
    write_split(folder, "test", patches[:20], np.ones(20, int))
    assert check_splits(folder, ["test"])[0].num_positive == 20


def test_a_class_that_the_filter_removes_is_missed(folder, patches):
    patches[LABELS == 1] = 0
    rewrite_train(folder, patches)
    with pytest.raises(DataError, match=r"the 15 patches used of 30 all have label 0"):
        check_splits(folder, filter_data=True)


def test_the_same_file_as_train_and_valid_is_refused(folder, patches):
    write_split(folder, "valid", patches, LABELS)
    with pytest.raises(DataError, match="same content"):
        check_splits(folder)


def test_patches_of_another_size_are_refused_unless_asked_for(folder, patches):
    rewrite_train(folder, patches[:, :64, :64])
    with pytest.raises(DataError, match="64 x 64 pixels, where the model takes 96 x 96"):
        check_splits(folder)
    assert check_splits(folder, ["train"], patch_size=(64, 64))[0].shape == (64, 64, 3)


def test_a_misspelt_split_file_names_the_one_there_is(folder):
    paths = split_paths(folder, "valid")
    paths.x.rename(paths.x.with_name("camelyonpatch_level_2_split_vaild_x.h5"))
    with pytest.raises(
        DataError, match=r"nearest names there: .*camelyonpatch_level_2_split_vaild"
    ):
        check_splits(folder)


def test_patches_and_labels_of_different_number_are_refused(folder, patches):
    write_split(folder, "train", patches, LABELS[:-1])
    with pytest.raises(DataError, match=r"30 patches but .* 29 labels"):
        check_splits(folder)


def test_the_pass_over_a_float_file_holds_little_of_it_at_once(folder, patches, monkeypatch):
    stored = np.tile(patches.astype(np.float32), (4, 1, 1, 1))
    rewrite_train(folder, stored, np.arange(len(stored)) % 2)
    monkeypatch.setattr("ml_core.data.patch_file._BLOCK_BYTES", 10 * stored[0].nbytes)
    sizes = []
    plain = np.isfinite
    monkeypatch.setattr(np, "isfinite", lambda a, *k, **o: sizes.append(np.size(a)) or plain(a))
    monkeypatch.setattr("ml_core.data.patch_file._NUM_SAMPLED", 5)
    check_splits(folder, ["train"])
    assert sum(size > 3 for size in sizes) > 12
    assert max(sizes) <= 10 * stored[0].size


def test_channel_statistics_are_those_of_the_pixels(folder, patches):
    paths = split_paths(folder, "train")
    mean, std = channel_stats(PCAMDataset(paths.x, paths.y))
    pixels = patches.reshape(-1, 3) / 255
    assert np.allclose(mean, pixels.mean(axis=0), atol=1e-12)
    assert np.allclose(std, pixels.std(axis=0), atol=1e-12)
    few, _ = channel_stats(PCAMDataset(paths.x, paths.y), max_patches=10)
    rows = evenly_spaced(NUM, 10)
    assert np.allclose(few, patches[rows].reshape(-1, 3).mean(axis=0) / 255, atol=1e-12)


def test_channel_statistics_of_floats_are_those_of_the_same_bytes(folder, patches):
    paths = split_paths(folder, "train")
    of_bytes = channel_stats(PCAMDataset(paths.x, paths.y))
    rewrite_train(folder, (patches / 255).astype(np.float32))
    assert channel_stats(PCAMDataset(paths.x, paths.y)) == of_bytes


def test_every_kind_of_known_damage_of_the_course_files_is_found(tmp_path, patches):
    """The course's train: float32, black, white, NaN, and blocks at 1e5."""
    stored = patches.astype(np.float32)
    stored[0], stored[1] = 0, 255
    stored[2, 3, 3] = np.nan
    stored[3, :5, :5] = 1e5
    for split in ("train", "valid"):
        with h5py.File(tmp_path / f"camelyonpatch_level_2_split_{split}_x.h5", "w") as file:
            file.create_dataset("x", data=stored if split == "train" else patches)
        with h5py.File(tmp_path / f"camelyonpatch_level_2_split_{split}_y.h5", "w") as file:
            file["y"] = LABELS.reshape(-1, 1, 1, 1)
    with pytest.raises(DataError, match=r"1 hold NaN or Inf, first at 2; 1 hold values outside"):
        check_splits(tmp_path)
    assert check_splits(tmp_path, filter_data=True)[0].num_patches == NUM - 4


def test_more_labels_than_patches_are_refused(folder, patches):
    write_split(folder, "train", patches[:-1], LABELS)
    with pytest.raises(DataError, match=r"29 patches but .* 30 labels"):
        check_splits(folder)


def test_digests_that_are_known_are_taken_and_no_file_is_hashed_again(folder, monkeypatch):
    known = hash_splits(folder, ("train", "valid"))
    monkeypatch.setattr("ml_core.data.checks.hash_file", lambda *_: 1 / 0)
    train, _ = check_splits(folder, hashes=known)
    paths = split_paths(folder, "train")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (paths.x, paths.y)]
    assert [train.x_sha256, train.y_sha256] == digests
