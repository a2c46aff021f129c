import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam

import ml_core.pipeline.parts.baselines as stage
from ml_core.config import Config
from ml_core.data.checks import hash_splits
from ml_core.data.layout import split_paths
from ml_core.errors import DataError
from ml_core.evaluation.baselines import BASELINES
from ml_core.pipeline.parts.baselines import baseline_table
from ml_core.pipeline.parts.splits import open_split
from ml_core.runs import read_json


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two splits that tests only read."""
    return write_tiny_pcam(tmp_path_factory.mktemp("tiny") / "data", num_train=48, num_valid=24)


@pytest.fixture
def config(tiny, tmp_path):
    return Config.load(write_config(tmp_path / "config.yaml", tiny))


@pytest.fixture
def no_reading(monkeypatch):
    """From the call of what this gives on, no split can be opened."""

    def refuse(*_):
        raise AssertionError("the patches are read again")

    return lambda: monkeypatch.setattr(stage, "open_split", refuse)


def kept_files(config):
    return sorted((config.output_dir / "baselines").rglob("*.parquet"))


def same(first, second):
    assert (first.split, first.facts) == (second.split, second.facts)
    assert np.array_equal(first.index, second.index)
    return all(np.array_equal(first.y_prob[name], second.y_prob[name]) for name in BASELINES)


def test_the_table_is_of_the_patches_that_a_run_would_score(config):
    config = config.model_copy(update={"data": config.data.model_copy(update={"max_patches": 20})})
    exclude = {"train": np.array([0, 5]), "valid": np.array([3, 4])}
    table = baseline_table(config, "valid", exclude)
    scored = open_split(config, "valid", exclude)
    assert np.array_equal(table.index, scored.indices) and len(table) == 20
    assert np.array_equal(table.y_true, scored.labels)
    assert table.facts["train_patches"] == 20
    assert ((table.y_prob["mean_colour"] > 0.5) == table.y_true).all()  # dark centres are tumour


def test_patches_that_are_left_out_of_training_are_not_fitted_on(config):
    table = baseline_table(config, "valid", {"train": np.arange(10)})
    facts = table.facts
    assert (facts["train_patches"], facts["train_positives"], facts["fitted_on"]) == (38, 19, 38)


def test_the_second_run_on_the_same_data_reads_no_patch(config, no_reading):
    first = baseline_table(config, "valid", {})
    no_reading()
    assert same(first, baseline_table(config, "valid", {}))


def test_with_known_hashes_a_kept_table_needs_no_data_file(tmp_path):
    folder = write_tiny_pcam(tmp_path / "data", 16, 8)
    config = Config.load(write_config(tmp_path / "config.yaml", folder))
    hashes = hash_splits(folder, ("train", "valid"))
    first = baseline_table(config, "valid", {}, hashes)
    shutil.rmtree(folder)
    assert same(first, baseline_table(config, "valid", {}, hashes))
    listed = {split: list(pair) for split, pair in hashes.items()}  # as a run's record has them
    assert same(first, baseline_table(config, "valid", {}, listed))


def test_what_cannot_move_a_number_shares_the_kept_table(config, no_reading):
    first = baseline_table(config, "valid", {})
    data = config.data.model_copy(update={"batch_size": 7, "num_workers": 1})
    other = config.model_copy(update={"data": data, "seed": 9, "experiment_name": "other"})
    no_reading()
    assert same(first, baseline_table(other, "valid", {"valid": np.empty(0, np.int64)}))


@pytest.mark.parametrize(
    ("changes", "exclude"),
    [
        ({"max_patches": 20}, {}),
        ({"balanced": False}, {}),
        ({"filter_data": True}, {}),
        ({}, {"train": np.array([1])}),
        ({}, {"valid": np.array([1])}),
    ],
)
def test_what_can_move_a_number_has_a_table_of_its_own(config, changes, exclude):
    baseline_table(config, "valid", {})
    other = config.model_copy(update={"data": config.data.model_copy(update=changes)})
    baseline_table(other, "valid", exclude)
    assert len(kept_files(config)) == 2


def test_other_bytes_and_other_recipes_have_a_table_of_their_own(tmp_path, monkeypatch):
    folder = write_tiny_pcam(tmp_path / "data", 16, 8)
    config = Config.load(write_config(tmp_path / "config.yaml", folder))
    baseline_table(config, "valid", {})
    labels = np.arange(16) % 2
    write_split(folder, "train", make_patches(labels, seed=9), labels)
    baseline_table(config, "valid", {})
    assert len(kept_files(config)) == 2
    monkeypatch.setattr(stage, "RECIPE", 99)
    baseline_table(config, "valid", {})
    assert len(kept_files(config)) == 3


def test_a_split_of_its_own_is_not_taken_for_another(config):
    assert baseline_table(config, "valid", {}).split == "valid"
    train = baseline_table(config, "train", {})
    assert (train.split, len(train)) == ("train", 48)
    assert len(kept_files(config)) == 2


def test_what_the_key_stands_for_is_written_beside_the_table(config, tiny):
    table = baseline_table(config, "valid", {"valid": np.array([3])})
    (path,) = kept_files(config)
    about = read_json(path.with_name("baselines.json"))
    assert about["key"] == path.parent.name == table.facts["key"]
    made_of = about["made_of"]
    x_sha256, y_sha256 = hash_splits(tiny, ["valid"])["valid"]
    assert made_of["data"]["valid"]["x_sha256"] == x_sha256
    assert made_of["data"]["valid"]["y_sha256"] == y_sha256
    assert made_of["data"]["valid"]["excluded"] != made_of["data"]["train"]["excluded"]
    assert (made_of["split"], made_of["balanced"], made_of["max_patches"]) == ("valid", True, None)


@pytest.mark.parametrize("damage", [b"", b"PAR1 but not quite", None])
def test_a_damaged_table_is_made_anew_and_said(config, caplog, damage):
    first = baseline_table(config, "valid", {})
    (path,) = kept_files(config)
    path.write_bytes(path.read_bytes()[:-30] if damage is None else damage)
    assert same(first, baseline_table(config, "valid", {}))
    assert f"{path} is not a readable parquet file" in caplog.text
    assert "computed anew" in caplog.text
    caplog.clear()
    assert same(first, baseline_table(config, "valid", {}))
    assert caplog.text == ""


def test_a_table_that_was_put_in_the_place_of_another_is_not_believed(config, caplog):
    first = baseline_table(config, "valid", {})
    (path,) = kept_files(config)
    baseline_table(config, "valid", {"valid": np.array([1])})
    (other,) = set(kept_files(config)) - {path}
    shutil.copy(other, path)
    assert same(first, baseline_table(config, "valid", {}))
    assert "which belong elsewhere. The baselines are computed anew" in caplog.text


def test_where_nothing_can_be_written_the_table_is_returned_all_the_same(config, caplog):
    config.output_dir.mkdir()
    (config.output_dir / "baselines").write_text("a file is in the way")
    table = baseline_table(config, "valid", {})
    assert len(table) == 24
    assert "the baselines cannot be kept in" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_said(config, caplog):
    config.output_dir.mkdir(mode=0o500)
    assert len(baseline_table(config, "valid", {})) == 24
    assert "the baselines cannot be kept in" in caplog.text


def test_a_full_disk_keeps_no_half_table(tiny, small_disk, tmp_path, caplog):
    path = write_config(tmp_path / "config.yaml", tiny, output_dir=str(small_disk / "runs"))
    config = Config.load(path)
    (small_disk / "filler").write_bytes(bytes(250 * 1024))
    assert len(baseline_table(config, "valid", {})) == 24
    assert "the baselines cannot be kept in" in caplog.text
    assert kept_files(config) == []


def test_files_that_are_not_those_of_the_record_are_refused(config):
    hashes = hash_splits(config.data.data_path, ("train", "valid"))
    known = {**hashes, "train": ("0" * 64, hashes["train"][1])}
    with pytest.raises(DataError, match=r"files of train in .* have changed since they were rec"):
        baseline_table(config, "valid", {}, known)
    assert kept_files(config) == []


def test_a_missing_train_split_is_named(tmp_path):
    folder = write_tiny_pcam(tmp_path / "data", 8, 8)
    config = Config.load(write_config(tmp_path / "config.yaml", folder))
    split_paths(folder, "train").x.unlink()
    with pytest.raises(DataError, match="split_train_x"):
        baseline_table(config, "valid", {})


def test_a_process_that_finishes_first_is_overwritten_with_the_same_table(config, monkeypatch):
    fit, first = stage.fit_baselines, []

    def meanwhile(*arguments, **options):
        monkeypatch.setattr(stage, "fit_baselines", fit)
        first.append(baseline_table(config, "valid", {}))
        return fit(*arguments, **options)

    monkeypatch.setattr(stage, "fit_baselines", meanwhile)
    second = baseline_table(config, "valid", {})
    assert same(first[0], second) and same(second, baseline_table(config, "valid", {}))
    assert len(kept_files(config)) == 1


# The end of a process that is killed when its table is written but has not yet its name.
DIE_WHILE_WRITING = """
import os, pathlib, signal, sys
import ml_core.durable
from ml_core.evaluation.baselines import BaselineTable
ml_core.durable.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
table = BaselineTable.load(pathlib.Path(sys.argv[1]))
table.save(pathlib.Path(sys.argv[2]))
"""


def test_a_kill_while_writing_leaves_the_place_free_for_the_next_process(config, tmp_path):
    first = baseline_table(config, "valid", {})
    (path,) = kept_files(config)
    whole = path.rename(tmp_path / "whole.parquet")
    arguments = [sys.executable, "-c", DIE_WHILE_WRITING, whole, path]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert [file.suffix for file in path.parent.iterdir() if file.name[0] == "."] == [".tmp"]
    assert kept_files(config) == []
    assert same(first, baseline_table(config, "valid", {}))
    assert kept_files(config) == [path]


MAKE = """
import sys
from ml_core.config import Config
from ml_core.pipeline.parts.baselines import baseline_table
baseline_table(Config.load(sys.argv[1]), "valid", {})
"""


@pytest.mark.slow
def test_two_processes_that_write_at_once_leave_one_whole_table(config, tiny, tmp_path):
    other = subprocess.Popen([sys.executable, "-c", MAKE, tmp_path / "config.yaml"])
    tables = []
    while other.poll() is None:  # over and over, so that the two meet
        tables.append(baseline_table(config, "valid", {}))
        kept_files(config)[0].unlink(missing_ok=True)
    assert other.returncode == 0
    tables.append(baseline_table(config, "valid", {}))
    assert all(same(tables[0], table) for table in tables)
    assert len(kept_files(config)) == 1
