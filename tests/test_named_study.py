"""`tune --study DIR --workers 0`: a job begins the study, others find it where they were told."""

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from search_steps import end, take
from tiny_pcam import write_config, write_tiny_pcam
from typed import typed

from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.pipeline import tune as tune_stage
from ml_core.pipeline.searching import begin_study as begin
from ml_core.pipeline.searching.finish_study import finish_study
from ml_core.pipeline.tune import resume, tune
from ml_core.search.study_dir import StudyDir, StudyRecord

SPACE = {"optimizer.lr": {"choices": [0.1, 0.2]}}


@pytest.fixture
def config_path(tmp_path, monkeypatch):
    monkeypatch.setattr(begin, "probe_effects", lambda *_: [])
    data = write_tiny_pcam(tmp_path / "data")
    return write_config(
        tmp_path / "config.yaml", data, search={"space": SPACE, "sampler": "grid", "num_workers": 3}
    )


@pytest.fixture
def config(config_path):
    return Config.load(config_path)


def begun_at(path, config):
    return tune(config, workers=0, path=path, command="a test")


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_study_is_begun_where_it_was_asked_for_and_left_to_its_workers(
    config_path, tmp_path, capfd
):
    done = typed(capfd, "tune", config_path, "--study", tmp_path / "s", "--workers", 0, "--json")
    assert done.code == 0
    assert done.json["status"] == "begun"
    assert done.json["study"] == str(tmp_path / "s")
    assert done.json["best"] is None
    assert "let workers join: ml-core tune --resume " in done.out
    study = StudyDir.open(tmp_path / "s")
    assert (StudyRecord.load(study).name, study.attempts()) == ("s", [])
    assert names(tmp_path) == ["config.yaml", "data", "s"]  # nothing is left beside it


def test_a_job_that_begins_it_twice_leaves_it_as_it_is(config, tmp_path):
    begun_at(tmp_path / "s", config)
    before = content(tmp_path / "s")
    again = begun_at(tmp_path / "s", config)
    assert again["status"] == "begun"
    assert content(tmp_path / "s") == before


def test_another_machine_may_have_other_threads_and_a_copy_of_the_data(config, tmp_path):
    begun_at(tmp_path / "s", config)
    begun_at(tmp_path / "s", config.with_overrides([f"data.local_copy={tmp_path / 'data'}"]))
    threads = Config.load(tmp_path / "s" / "config.yaml").training.num_threads
    assert threads is not None
    with pytest.raises(RunError, match=r"another config: training\.num_threads differ"):
        begun_at(tmp_path / "s", config.with_overrides([f"training.num_threads={threads + 1}"]))


def test_a_study_of_another_config_is_never_taken_for_this_one(config, tmp_path):
    begun_at(tmp_path / "s", config)
    before = content(tmp_path / "s")
    other = config.with_overrides(["training.epochs=3", "optimizer.lr=0.5"])
    with pytest.raises(RunError, match=r"another config: optimizer\.lr, training\.epochs differ"):
        begun_at(tmp_path / "s", other)
    assert content(tmp_path / "s") == before


def test_a_folder_that_holds_something_else_is_refused_and_an_empty_one_taken(config, tmp_path):
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    begun_at(tmp_path / "empty", config)
    with pytest.raises(RunError, match=r"full is there and is no study"):
        begun_at(tmp_path / "full", config)
    assert names(tmp_path / "full") == ["notes"]


def test_of_several_that_begin_one_study_one_does_and_all_agree(config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        tune_stage, "find_study", lambda *_: None
    )  # as if all had looked before any
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: begun_at(tmp_path / "s", config), range(4)))
    assert {each["study"] for each in done} == {str(tmp_path / "s")}
    assert names(tmp_path) == ["config.yaml", "data", "s"]
    StudyRecord.load(StudyDir.open(tmp_path / "s"))


def test_a_resumed_study_has_its_place_and_needs_a_worker(config_path, tmp_path, capfd):
    done = typed(capfd, "tune", "--resume", tmp_path, "--study", tmp_path / "other")
    assert (done.code, "keeps its own config: give --resume STUDY alone" in done.out) == (2, True)
    done = typed(capfd, "tune", "--resume", tmp_path, "--workers", 0)
    assert (done.code, "at least one worker" in done.out) == (2, True)


def test_a_worker_that_comes_when_all_is_done_ends_well_and_several_may_finish(config, tmp_path):
    begun_at(tmp_path / "s", config)
    study = StudyDir.open(tmp_path / "s")
    for number in range(2):
        end(take(study, number, params={"optimizer.lr": 0.1}), "complete", [0.5], value=0.5)
    context = multiprocessing.get_context("fork")
    late = [context.Process(target=come_late, args=(study.path,)) for _ in range(2)]
    for process in late:
        process.start()
    for process in late:
        process.join(60)
    assert [process.exitcode for process in late] == [0, 0]
    assert {"study.html", "trials.csv", "optuna.journal"} <= set(names(study.path))
    assert not list(study.path.rglob("*.tmp"))


def come_late(path):
    assert resume(path, workers=1, command="late")["status"] == "completed"


def test_a_warning_of_the_time_limit_does_not_end_who_writes_the_studys_page(
    config, tmp_path, monkeypatch
):
    begun_at(tmp_path / "s", config)
    study = StudyDir.open(tmp_path / "s")
    for number in range(2):
        end(take(study, number, params={"optimizer.lr": 0.1}), "complete", [0.5], value=0.5)
    gone = SimpleNamespace(is_at_work=False, refusals=[], num_dead=0)
    monkeypatch.setattr(tune_stage, "Crew", lambda *_, **__: gone)

    def finish(study):
        assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL, "this would end the process"
        os.kill(os.getpid(), signal.SIGUSR1)
        return finish_study(study)

    monkeypatch.setattr(tune_stage, "finish_study", finish)
    assert tune_stage._run(study, 1, "a test")["status"] == "completed"


def test_the_server_of_workers_outlives_what_slurm_sends_to_every_process():
    started = (
        "from multiprocessing import forkserver; from ml_core.search.crew import start_server; "
        "start_server(()); print(forkserver._forkserver._forkserver_pid, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", started], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    status = Path(f"/proc/{process.stdout.readline().strip()}/status").read_text()
    process.communicate("\n")
    ignored = int(next(line.split()[1] for line in status.splitlines() if "SigIgn" in line), 16)
    assert [bool(ignored >> (number - 1) & 1) for number in (10, 12, 15)] == [True, True, True]
