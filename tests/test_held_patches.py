"""Patches kept in memory: the same as from the file, whatever becomes of that, or refused."""

import h5py
import numpy as np
import pytest
import torch
from tiny_pcam import make_patches, write_split

from ml_core.data import PCAMDataset, held_patches
from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.errors import ConfigError, DataError

CPU = torch.device("cpu")
LABELS = np.arange(50) % 2
BYTES = 96 * 96 * 3  # of a patch


@pytest.fixture
def folder(tmp_path):
    patches = make_patches(LABELS)
    patches[[3, 20]] = 0  # which filter_data drops
    write_split(tmp_path, "train", patches, LABELS)
    return tmp_path


def dataset_of(folder, **options):
    paths = split_paths(folder, "train")
    return PCAMDataset(paths.x, paths.y, **options)


def store_otherwise(folder, layout):
    path = split_paths(folder, "train").x
    with h5py.File(path) as file:
        patches = file["x"][:]
    with h5py.File(path, "w") as file:
        if layout == "chunked":
            file.create_dataset("x", data=patches, chunks=(7, 96, 96, 3), compression="gzip")
        else:
            file["x"] = patches.astype(layout)


@pytest.mark.parametrize("layout", ["uint8", "float32", "chunked"])
def test_held_patches_are_those_of_the_file(folder, layout, monkeypatch):
    monkeypatch.setattr("ml_core.data.patch_file._BLOCK_BYTES", 8 * BYTES)  # in several pieces
    store_otherwise(folder, layout)
    options = {"filter_data": True, "exclude": np.array([7, 8, 9]), "subset": 30}
    plain, held = dataset_of(folder, **options), dataset_of(folder, **options)
    held.hold(CPU)
    assert held.held_on == CPU and plain.held_on is None
    both = [list(build_loader(each, 8, shuffle=True, seed=3)) for each in (plain, held)]
    for one, other in zip(*both, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert one.images.stride() == other.images.stride()
    assert sorted(torch.cat([batch.index for batch in both[1]]).tolist()) == list(plain.indices)


def test_a_patch_a_transform_and_an_empty_batch_come_from_memory_too(folder):
    plain, held = (dataset_of(folder, transform=lambda patch: patch.sum()) for _ in range(2))
    held.hold(CPU)
    assert [held[i][0] for i in (-1, 0, 3)] == [plain[i][0] for i in (-1, 0, 3)]
    held.transform = None
    assert held.__getitems__([]).images.shape == (0, 3, 96, 96)


def test_only_the_patches_in_use_take_memory(folder):
    held = dataset_of(folder, subset=10)
    held.hold(CPU)
    assert held._held._patches.nbytes == 10 * BYTES


def test_a_batch_is_a_copy_that_may_be_written_to(folder):
    held = dataset_of(folder)
    held.hold(CPU)
    before = held[5][0].clone()
    held.__getitems__([5]).images.zero_()
    assert torch.equal(held[5][0], before)


def test_what_becomes_of_the_file_is_not_felt_afterwards(folder):
    held = dataset_of(folder)
    held.hold(CPU)
    split_paths(folder, "train").x.unlink()
    assert len(held.__getitems__(range(50)).images) == 50


def test_a_file_that_is_written_to_while_it_is_read_is_refused(folder, monkeypatch):
    monkeypatch.setattr("ml_core.data.patch_file._BLOCK_BYTES", 8 * BYTES)
    held = dataset_of(folder)
    plain, num_read = held.file.read, []

    def read(rows):
        num_read.append(len(rows))
        if len(num_read) == 3:
            with h5py.File(held.file.path, "r+") as file:
                file["x"][0] = 1
        return plain(rows)

    monkeypatch.setattr(held.file, "read", read)
    with pytest.raises(DataError, match="was written to"):
        held.hold(CPU)


def test_too_little_memory_is_said_with_both_figures_before_a_patch_is_read(folder, monkeypatch):
    held = dataset_of(folder)
    monkeypatch.setattr(held_patches, "free_memory_of", lambda _: 60 * BYTES)
    monkeypatch.setattr(held.file, "read", None)
    with pytest.raises(ConfigError) as refused:
        held.hold(CPU)
    for word in ("data.placement is ram", "50 patches", "0.0 GB", "80%", "data.max_patches"):
        assert word in str(refused.value)
    monkeypatch.undo()
    monkeypatch.setattr(held_patches, "free_memory_of", lambda _: 63 * BYTES)
    held.hold(CPU)


def test_readers_cannot_be_given_patches_that_are_held(folder):
    held = dataset_of(folder)
    held.hold(CPU)
    with pytest.raises(ConfigError, match=r"data\.num_workers to 0"):
        build_loader(held, 8, shuffle=True, num_workers=1)
