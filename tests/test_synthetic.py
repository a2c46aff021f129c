"""The synthetic data set: PCam's layout, a label that lies in the centre, colours that hide it."""

import hashlib
import resource
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ml_core.data import PCAMDataset
from ml_core.data.checks import check_splits
from ml_core.data.layout import SPLITS, split_paths
from ml_core.data.synthetic import write_synthetic
from ml_core.data.tissue import Tissue, draw_slides
from ml_core.errors import DataError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "data" / "synth"
    write_synthetic(folder, 600, 400, 50, seed=1)
    return folder


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_files_are_those_of_pcam_and_pass_the_check_before_training(written):
    assert len(list(written.iterdir())) == 9
    records = check_splits(written, SPLITS)
    assert [record.num_patches for record in records] == [600, 400, 50]
    assert [record.num_positive for record in records] == [300, 200, 25]
    assert {record.layout for record in records} == {"contiguous"}
    assert {record.dtype for record in records} == {"uint8"}


def test_the_meta_file_has_pcams_columns_and_agrees_with_the_labels(written):
    slides = {}
    for split in SPLITS:
        paths = split_paths(written, split)
        meta = pd.read_csv(paths.meta)
        assert list(meta) == ["coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"]
        assert set(paths.meta.read_text().split(",")[6:8]) <= {"True", "False"}
        labels = PCAMDataset(paths.x, paths.y).labels
        assert np.array_equal(meta.center_tumor_patch, labels == 1)
        assert (meta.tumor_patch | ~meta.center_tumor_patch).all()
        assert (meta.tumor_patch & ~meta.center_tumor_patch).any()  # tumour beside the centre only
        assert not meta.duplicated(["coord_y", "coord_x", "wsi"]).any()
        slides[split] = set(meta.wsi)
    assert not slides["train"] & slides["valid"] | slides["train"] & slides["test"]
    assert not slides["valid"] & slides["test"]


def test_a_patch_is_positive_exactly_where_a_tumour_nucleus_touches_the_centre():
    rng = np.random.default_rng(0)
    tissue, slides = Tissue(rng), draw_slides(rng, 8)
    is_positive = np.arange(200) % 2 == 0
    patches, nuclei = tissue.draw(rng, slides, np.arange(200) % 8, is_positive)
    assert patches.shape == (200, 96, 96, 3) and patches.dtype == np.uint8
    assert np.array_equal(nuclei[:, 32:64, 32:64].any(axis=(1, 2)), is_positive)
    assert nuclei[~is_positive].any()


def test_patches_look_like_stained_tissue_in_their_grey_levels(written):
    paths = split_paths(written, "train")
    dataset = PCAMDataset(paths.x, paths.y)
    patches = dataset.file.read(dataset.indices)
    red, green, blue = patches.reshape(-1, 3).mean(axis=0)
    assert green < red and green < blue  # pink to purple, as in PCam
    assert 90 < patches.mean() < 200
    assert patches.reshape(len(patches), -1).std(axis=1).min() > 10  # none is blank
    assert len(np.unique(patches.reshape(len(patches), -1), axis=0)) == len(patches)


def test_colour_alone_is_a_weak_predictor(written):
    def histograms(split):
        paths = split_paths(written, split)
        dataset = PCAMDataset(paths.x, paths.y)
        pixels = dataset.file.read(dataset.indices).reshape(len(dataset), -1, 3) // 16
        bins = [(pixels == level).mean(axis=1) for level in range(16)]
        return np.concatenate(bins, axis=1), dataset.labels

    x_train, y_train = histograms("train")
    x_valid, y_valid = histograms("valid")
    scale = x_train.std(axis=0) + 1e-6
    model = LogisticRegression(C=0.1, max_iter=1000).fit(x_train / scale, y_train)
    assert roc_auc_score(y_valid, model.decision_function(x_valid / scale)) <= 0.75


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_synthetic(tmp_path / name, 20, 10, 10, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "c").values())


def test_progress_is_told_and_changes_nothing(tmp_path):
    write_synthetic(tmp_path / "untold", 130, 10, 10, seed=7)
    progress = []
    write_synthetic(tmp_path / "told", 130, 10, 10, seed=7, on_progress=progress.append)
    assert digests(tmp_path / "untold") == digests(tmp_path / "told")
    assert progress == [128, 130, 140, 150]


def test_files_that_are_there_are_kept_unless_forced(tmp_path):
    write_synthetic(tmp_path, 4, 4, 4, seed=1)
    before = digests(tmp_path)
    with pytest.raises(DataError, match="there already"):
        write_synthetic(tmp_path, 4, 4, 4, seed=2)
    assert digests(tmp_path) == before
    write_synthetic(tmp_path, 4, 4, 4, seed=2, force=True)
    assert digests(tmp_path) != before and len(digests(tmp_path)) == 9


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"2 MiB free; 108 patches need 4 MiB"):
        write_synthetic(tmp_path / "new", 100, 4, 4)
    assert not any((tmp_path / "new").iterdir())


@pytest.mark.parametrize("limit", [100_000, 30 * 27_648])
def test_a_write_that_fails_halfway_leaves_the_old_files_and_no_rest(tmp_path, limit):
    write_synthetic(tmp_path, 4, 4, 4, seed=1)
    before = digests(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # as a full disk does, it stops writes
    try:
        with pytest.raises(DataError, match="cannot write synthetic patches"):
            write_synthetic(tmp_path, 40, 4, 4, seed=2, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert digests(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write synthetic patches"):
        write_synthetic(tmp_path / "file" / "synth", 4, 4, 4)


def test_a_split_too_small_for_both_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least 2"):
        write_synthetic(tmp_path, 4, 1, 4)
