"""data.local_copy: a copy on a faster disk is read; what is recorded stays with the data."""

import logging
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_pcam import write_config, write_tiny_pcam

import ml_core
from ml_core.audit.files import AuditDir
from ml_core.config import Config
from ml_core.data.layout import split_paths
from ml_core.errors import ConfigError, DataError, RunError
from ml_core.pipeline.audit import audit
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.explain import explain
from ml_core.pipeline.slice import slice_predictions
from ml_core.pipeline.train import resume, train
from ml_core.pipeline.verify import verify_run
from ml_core.runs import RunDir, RunRecord

FEW = {"num_resamples": 100, "probe_patches": 100, "saliency_patches": 16}


@pytest.fixture
def folder(tmp_path):
    return write_tiny_pcam(tmp_path / "data")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture(autouse=True)
def _without_page(monkeypatch):
    monkeypatch.setattr("ml_core.pipeline.audit.render_audit", lambda *_: None)


def config_of(folder, copy=None, **sections):
    data = {} if copy is None else {"local_copy": str(copy)}
    path = write_config(folder.parent / "c.yaml", folder, data=data, **sections)
    return Config.load(path, ["training.epochs=1"])


def trained(config):
    return RunDir.open(train(config, command="test")["runs"][0]["run"])


def hide_files(folder):
    """Leave of a data folder what is not the data, such as the audit."""
    for path in folder.glob("*.h5"):
        path.rename(path.with_suffix(".hidden"))


def change_a_pixel(folder):
    """Change one patch of train, and no file's size."""
    with h5py.File(split_paths(folder, "train").x, "r+") as file:
        file["x"][3] = file["x"][3] ^ np.uint8(1)


def files_of(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_the_copy_is_read_and_the_data_are_not(folder, copy):
    hide_files(folder)
    config = config_of(folder, copy, evaluation=FEW)
    assert not audit(folder.parent / "c.yaml", quick=True)["failed"]
    run = trained(config)
    evaluate(run.path)
    slice_predictions(run.path)
    assert verify_run(run.path)["status"] == "identical"


def test_no_stage_opens_the_files_of_data_path_itself():
    opened = re.compile(r"(?:split_paths|\w+_splits)\(\s*(?:\w+\.)*data\.data_path")
    source = Path(ml_core.__file__).parent
    paths = source.rglob("pipeline/**/*.py")
    found = {path.name: len(opened.findall(path.read_text())) for path in paths}
    assert {name: num for name, num in found.items() if num} == {
        "splits.py": 1,  # which records where the files stay
        "local_copy.py": 1,  # which compares their sizes
    }


def test_audit_and_record_stay_with_the_data(folder, copy):
    before = files_of(copy)
    run = trained(config_of(folder, copy))
    record = RunRecord.load(run)
    assert record.data["train"]["x_path"] == str(split_paths(folder, "train").x)
    assert record.audit["path"] == str(folder / "audit" / "quick")
    audited = AuditDir(folder / "audit" / "quick").record_path.read_text()
    assert str(copy) not in audited
    assert files_of(copy) == before


def test_the_copy_changes_no_weight(folder, copy):
    runs = [trained(config_of(folder, where)) for where in (None, copy)]
    digests = {RunRecord.load(run).best["weights_sha256"] for run in runs}
    assert len(digests) == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_it_is_said_whether_the_copy_is_read(folder, copy, caplog, is_there):
    if not is_there:
        copy = folder.parent / "nowhere"
    caplog.set_level(logging.INFO, "ml_core.data")
    trained(config_of(folder, copy))
    said = (
        f"read from {copy}, a copy of {folder}"
        if is_there
        else f"data.local_copy {copy} is not on this machine; read from {folder}"
    )
    assert said in caplog.messages


def test_a_copy_of_another_size_is_refused_before_anything_is_written(folder, copy):
    write_tiny_pcam(copy, num_train=98)
    config = config_of(folder, copy)
    before = files_of(folder.parent)
    with pytest.raises(DataError, match=r"copy/.*train_x.h5 has .* is no copy of data.data_path"):
        train(config, command="test")
    assert files_of(folder.parent) == before


def test_a_copy_of_other_bytes_than_the_audited_ones_is_refused(folder, copy):
    trained(config_of(folder))
    change_a_pixel(copy)
    with pytest.raises(DataError, match=f"{copy} is not of the bytes that .*audit.json is of"):
        train(config_of(folder, copy), command="test")


def test_a_copy_of_other_bytes_than_the_runs_is_refused(folder, copy):
    run = trained(config_of(folder))
    change_a_pixel(copy)
    set_copy = [f"data.local_copy={copy}"]
    with pytest.raises(RunError, match=f"{copy}/.*train_x.h5 has changed since the run was tr"):
        explain(evaluated(run), overrides=set_copy)
    record = RunRecord.load(run)
    record.status = "interrupted"
    record.save(run)
    with pytest.raises(RunError, match=f"{copy}/.*train_x.h5 has changed since the run was tr"):
        resume(run.path, set_copy, command="test")


def evaluated(run):
    evaluate(run.path)
    return run.path


def test_a_copy_that_lacks_a_file_is_refused_by_name(folder, copy):
    split_paths(copy, "valid").y.unlink()
    with pytest.raises(DataError, match=f"{split_paths(copy, 'valid').y}"):
        train(config_of(folder, copy), command="test")


def test_a_search_is_of_one_copy(folder, copy):
    from ml_core.pipeline.searching.search_plan import plan_search

    space = {"space": {"data.local_copy": {"choices": [str(folder), str(copy)]}}}
    with pytest.raises(ConfigError, match=r"data\.local_copy is the same for all trials"):
        plan_search(config_of(folder, search=space))
