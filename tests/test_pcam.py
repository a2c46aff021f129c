"""PCAMDataset: what a split's files must hold, what an item is, and what the filter drops."""

import logging

import h5py
import numpy as np
import pytest
import torch
from tiny_pcam import write_split
from torch.utils.data import DataLoader, Subset

from ml_core.data import PCAMDataset
from ml_core.data.layout import load_labels, split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.data.survey import survey_patches
from ml_core.errors import DataError

NUM = 100


@pytest.fixture
def course_split(tmp_path):
    """Write the file the course tests with: float32, one value at 1e5, one black, one white."""
    patches = np.full((NUM, 96, 96, 3), 128.0, dtype=np.float32)
    patches[0, 0, 0, :] = 1e5
    patches[1], patches[2] = 0, 255
    labels = np.zeros((NUM, 1, 1, 1), dtype=np.int64)
    labels[80:] = 1
    write_split(tmp_path, "train", patches, labels)
    return split_paths(tmp_path, "train")


@pytest.fixture
def byte_split(tmp_path):
    """Write 40 random uint8 patches, a third of them positive; return paths, patches, labels."""
    patches = np.random.default_rng(0).integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
    labels = (np.arange(40) % 3 == 0).astype(np.uint8)
    write_split(tmp_path, "valid", patches, labels)
    return split_paths(tmp_path, "valid"), patches, labels


def test_the_courses_float_file_gives_patches_of_at_most_255(course_split):
    dataset = PCAMDataset(course_split.x, course_split.y)
    image, label = dataset[0]
    assert image.shape == (3, 96, 96) and image.dtype == torch.uint8
    assert image.max() == 255 and image[:, 1, 1].tolist() == [128, 128, 128]
    assert label.shape == () and label.dtype == torch.long
    assert len(dataset) == len(dataset.indices) == NUM


def test_the_filter_drops_black_and_white_and_keeps_labels_aligned(course_split):
    dataset = PCAMDataset(course_split.x, course_split.y, filter_data=True)
    assert dataset.indices.tolist() == [0, *range(3, NUM)]
    assert dataset.labels.tolist() == [0] * 78 + [1] * 20
    assert dataset[78][1] == 1 and dataset[77][1] == 0


def test_the_filter_drops_nan_and_means_beyond_255(tmp_path):
    patches = np.full((6, 96, 96, 3), 10.0, dtype=np.float32)
    patches[1, 5, 5, 1] = np.nan
    patches[2, 5, 5, 1] = np.inf
    patches[3, :5, :5] = 1e5  # mean 281
    patches[4] = 255
    patches[4, 0, 0, 0] = 254  # not quite white
    write_split(tmp_path, "train", patches, np.arange(6) % 2)
    paths = split_paths(tmp_path, "train")
    dataset = PCAMDataset(paths.x, paths.y, filter_data=True)
    assert dataset.indices.tolist() == [0, 4, 5]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_filter_reads_each_patch_once(tmp_path, monkeypatch, dtype):
    patches = np.full((20, 96, 96, 3), 99, dtype=dtype)
    patches[7] = 0
    write_split(tmp_path, "train", patches, np.arange(20) % 2)
    paths = split_paths(tmp_path, "train")
    monkeypatch.setattr("ml_core.data.patch_file._NUM_SAMPLED", 1)
    read = []
    plain = PatchFile.read_raw
    monkeypatch.setattr(
        PatchFile, "read_raw", lambda self, rows: read.extend(rows.tolist()) or plain(self, rows)
    )
    dataset = PCAMDataset(paths.x, paths.y, filter_data=True)
    assert len(dataset) == 19
    assert len(read) <= 21  # all, and one sampled for the range of floats


def test_the_mean_of_unit_floats_is_taken_on_the_scale_of_255(tmp_path):
    patches = np.full((5, 96, 96, 3), 0.5, dtype=np.float32)
    patches[1], patches[2] = 1, 0
    write_split(tmp_path, "train", patches, np.arange(5) % 2)
    file = PatchFile(split_paths(tmp_path, "train").x)
    survey = survey_patches(file, np.arange(5))
    assert survey.mean.tolist() == [127.5, 255, 0, 127.5, 127.5]
    assert survey.is_informative.tolist() == [True, False, False, True, True]


def test_a_filter_that_leaves_nothing_is_an_error(tmp_path):
    write_split(tmp_path, "train", np.zeros((4, 96, 96, 3), np.uint8), np.arange(4) % 2)
    paths = split_paths(tmp_path, "train")
    with pytest.raises(DataError, match="leaves no patch"):
        PCAMDataset(paths.x, paths.y, filter_data=True)


def test_an_item_is_the_patch_of_its_row(byte_split):
    paths, patches, labels = byte_split
    dataset = PCAMDataset(paths.x, paths.y)
    for i in (0, 13, 39, -1, np.int64(7)):
        image, label = dataset[i]
        assert np.array_equal(image.permute(1, 2, 0), patches[i])
        assert label == labels[i]
    with pytest.raises(IndexError):
        dataset[40]
    assert len(list(dataset)) == 40  # a plain for loop ends


def test_a_transform_is_given_the_array_and_its_result_is_the_image(byte_split):
    paths, patches, _ = byte_split
    seen = []

    def transform(patch):
        seen.append((patch.shape, patch.dtype))
        return int(patch[0, 0, 0])

    dataset = PCAMDataset(paths.x, paths.y, transform)
    assert dataset[5][0] == patches[5, 0, 0, 0]
    assert seen == [((96, 96, 3), np.dtype(np.uint8))]


def test_a_subset_is_evenly_spaced_and_a_subset_of_more_is_all(byte_split):
    paths, _, labels = byte_split
    dataset = PCAMDataset(paths.x, paths.y, subset=10)
    assert (dataset.indices // 4).tolist() == list(range(10))
    assert np.array_equal(dataset.labels, labels[dataset.indices])
    assert dataset.num_rows == 40
    assert len(PCAMDataset(paths.x, paths.y, subset=1000)) == 40
    with pytest.raises(DataError, match="at least 1"):
        PCAMDataset(paths.x, paths.y, subset=0)


def test_many_items_read_together_are_those_read_alone(byte_split):
    paths, _, _ = byte_split
    dataset = PCAMDataset(paths.x, paths.y, subset=30)
    positions = [22, 3, 3, 29]
    batch = dataset.__getitems__(positions)
    assert batch.index.tolist() == dataset.indices[positions].tolist()
    for (image, label), position in zip(batch, positions, strict=True):
        alone, its_label = dataset[position]
        assert torch.equal(image, alone) and label == its_label


def test_plain_torch_loaders_and_subsets_work_on_it(byte_split):
    paths, patches, labels = byte_split
    dataset = Subset(PCAMDataset(paths.x, paths.y), [4, 9, 2])
    ((images, batch_labels),) = DataLoader(dataset, batch_size=3)
    assert np.array_equal(images.permute(0, 2, 3, 1), patches[[4, 9, 2]])
    assert batch_labels.tolist() == labels[[4, 9, 2]].tolist()


def test_reading_by_another_way_than_the_map_is_said_once(course_split, byte_split, caplog):
    paths, _, _ = byte_split
    with caplog.at_level(logging.WARNING, "ml_core.data"):
        PCAMDataset(paths.x, paths.y)
        assert not caplog.records
        for _ in range(2):
            PCAMDataset(course_split.x, course_split.y)
    assert len(caplog.records) == 1
    assert "float32" in caplog.text and "slow" in caplog.text


def test_patches_and_labels_of_different_number_are_an_error(tmp_path):
    write_split(tmp_path, "train", np.zeros((5, 96, 96, 3), np.uint8), np.arange(4) % 2)
    paths = split_paths(tmp_path, "train")
    with pytest.raises(DataError, match=r"5 patches .* 4 labels"):
        PCAMDataset(paths.x, paths.y)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1, 1)])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i4", ">i8", "u8", "?", "f4"])
def test_labels_of_any_usual_dtype_and_shape_are_read(tmp_path, shape, dtype):
    labels = np.array([0, 1, 1, 0, 1, 0])
    path = write_labels(tmp_path, labels.astype(dtype).reshape(shape))
    read = load_labels(path)
    assert read.dtype == np.int64 and read.tolist() == labels.tolist()


def write_labels(folder, labels, key="y"):
    path = folder / "y.h5"
    with h5py.File(path, "w") as file:
        file[key] = labels
    return path


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 1, 2, 1, 7]), r"2 labels are neither 0 nor 1 \(2, 7\), first at row 2"),
        (np.array([0, -1]), r"\(-1\), first at row 1"),
        (np.array([0.0, 0.7]), r"\(0.7\), first at row 1"),
        (np.array([0.0, np.nan]), r"\(nan\), first at row 1"),
        (np.zeros((4, 2), int), r"shape \(4, 2\)"),
        (np.zeros((4, 96, 96, 3), np.uint8), "one per patch"),
        (np.zeros((0, 1, 1, 1), int), "no label"),
        (np.array([b"0", b"1"]), "must be integers"),
        (np.int64(1), r"shape \(\)"),
    ],
)
def test_labels_that_are_not_0_and_1_are_an_error(tmp_path, labels, said):
    with pytest.raises(DataError, match=said):
        load_labels(write_labels(tmp_path, labels))


def test_a_label_file_without_y_lists_its_keys(tmp_path):
    with pytest.raises(DataError, match="no data set 'y'; it has: labels"):
        load_labels(write_labels(tmp_path, np.zeros(3, int), key="labels"))


def test_an_unknown_split_names_the_nearest():
    with pytest.raises(DataError, match=r"unknown split 'val'; .*train, valid, test.*'valid'"):
        split_paths("data", "val")
