"""`ml-core twin`: two fresh processes, two run directories, one verdict."""

import pytest
from tiny_pcam import write_config, write_tiny_pcam
from typed import typed

from ml_core.runs import RunDir, RunRecord


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def twin(capfd):
    """Type a twin; returns (exit code, result or None, everything printed)."""

    def run(config, *arguments):
        done = typed(capfd, "twin", config, *arguments, "--json")
        return done.code, done.json if done.code in (0, 3) else None, done.out

    return run


def but_of_code(result):
    """The differences, but for a file that somebody edits while the twins are training."""
    return [each for each in result["differences"] if each["kind"] != "code"]


def config_of(tmp_path, data_dir, **training):
    training = {"epochs": 1, "num_threads": 1, **training}
    return write_config(tmp_path / "config.yaml", data_dir, training=training)


@pytest.mark.slow
def test_twins_with_other_readers_are_the_same_run(twin, data_dir, tmp_path):
    config = config_of(tmp_path, data_dir)
    code, result, out = twin(config, "--other", "data.num_workers=2")
    assert code == 0, out
    assert result["status"] == "identical"
    assert but_of_code(result) == []
    assert result["compared"]["steps"] == 3
    assert result["compared"]["links"] == 1
    first, second = (RunDir.open(run) for run in result["runs"])
    assert first.path.parent == second.path.parent == tmp_path / "runs" / "tiny"
    assert RunRecord.load(first).config["data"]["num_workers"] == 0
    assert RunRecord.load(second).config["data"]["num_workers"] == 2


@pytest.mark.slow
def test_twins_of_other_seeds_are_not_the_same_run(twin, data_dir, tmp_path):
    config = config_of(tmp_path, data_dir)
    code, result, out = twin(config, "--set", "seeds=[4, 5]", "--other", "seed=6")
    assert code == 3, out
    assert result["status"] == "different"
    found = but_of_code(result)[0]
    assert (found["what"], found["here"], found["there"]) == ("seed", "4", "6")
    assert result["differences"][-1]["kind"] == "numerics"


@pytest.mark.slow
def test_an_elastic_twin_in_two_ranks_is_the_same_run(twin, data_dir, tmp_path):
    config = config_of(tmp_path, data_dir, numerics="elastic", micro_batch=8)
    code, result, out = twin(config, "--other-ranks", "2")
    assert code == 0, out
    (only,) = but_of_code(result)
    assert (only["kind"], only["here"], only["there"]) == ("hardware", "1", "2")
    assert "ranks" in only["what"]
    assert result["compared"]["steps"] == 3


def test_settings_that_are_not_valid_are_refused_before_anything_is_trained(
    twin, data_dir, tmp_path
):
    config = config_of(tmp_path, data_dir)
    code, result, out = twin(config, "--other", "data.num_worker=2")
    assert (code, result) == (2, None)
    assert "data.num_worker" in out
    assert not (tmp_path / "runs").exists()


def test_ranks_are_refused_in_fast_before_anything_is_trained(twin, data_dir, tmp_path):
    code, result, out = twin(config_of(tmp_path, data_dir), "--other-ranks", "2")
    assert (code, result) == (2, None)
    assert "training.numerics is fast" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_training_that_fails_is_said_and_leaves_no_verdict(twin, tmp_path):
    config = config_of(tmp_path, tmp_path / "no-data-here")
    code, result, out = twin(config)
    assert (code, result) == (2, None)
    assert "ended with exit code 2, so there is no pair to compare" in out
    assert "Traceback" not in out
