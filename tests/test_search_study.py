"""A study on disk: slots claimed once, journals read as they are, the dead found."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import pytest
from search_steps import end, make_study, take
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.data.layout import split_paths
from ml_core.errors import DataError, RunError
from ml_core.log_line import to_line
from ml_core.pipeline.searching import begin_study as begin
from ml_core.pipeline.searching.study_data import DataStamps, load_gate, trial_checks
from ml_core.pipeline.searching.trial import trial_config
from ml_core.pipeline.tune import resume
from ml_core.search.journal import AbandonedError, Journal
from ml_core.search.process import is_alive, start_time, this_process
from ml_core.search.recovery import abandon, inherit_run, recover
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.summary import (
    best_epoch,
    commonest_cause,
    count_states,
    render_trial,
    write_table,
)
from ml_core.search.trials import best_trial, load_trials


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


def states(study):
    return [trial.state for trial in load_trials(study)]


# ---- claims --------------------------------------------------------------------------------------


def test_of_many_workers_that_want_a_slot_one_gets_it(study):
    with ThreadPoolExecutor(8) as pool:
        wanted = [number for number in range(25) for _ in range(8)]
        claims = list(pool.map(lambda number: take(study, number), wanted))
    taken = [claim.name for claim in claims if claim is not None]
    assert sorted(taken) == [f"{number:04d}" for number in range(25)]
    assert [trial.number for trial in load_trials(study)] == list(range(25))
    assert sorted(path.name for path in study.trials_dir.iterdir()) == sorted(taken)  # no leftovers


def test_a_claim_is_whole_from_its_first_moment(study):
    folder = take(study, 0, params={"optimizer.lr": 0.5})
    (trial,) = load_trials(study)
    assert (trial.state, trial.params, trial.attempt) == ("running", {"optimizer.lr": 0.5}, 0)
    assert folder.heartbeat_path.exists()


def test_a_claim_cut_off_by_a_kill_is_none_and_its_slot_is_free(study):
    whole = take(study, 0)
    shutil.copytree(whole.path, study.trials_dir / ".0001.host.7.claim")  # before its rename
    study.attempt(2).path.mkdir()  # made by a tool that copies a study
    assert [trial.number for trial in load_trials(study)] == [0]
    assert take(study, 1) is not None
    assert take(study, 2) is not None


def test_a_slot_without_its_claim_is_refused_in_words(study):
    take(study, 0).claim_path.unlink()
    with pytest.raises(RunError, match=r"0000 holds no trial.json.*its slot is then tried anew"):
        load_trials(study)


# ---- what the journals say -----------------------------------------------------------------------


def test_trials_are_told_by_their_journals(study):
    end(take(study, 0), "complete", [0.6, 0.8, 0.7], value=0.8, seconds=12.5)
    end(take(study, 1), "pruned", [0.5, math.nan], value=0.5)
    end(take(study, 2), "failed", cause="error", error="ValueError: no")
    end(take(study, 3), None, [0.4])
    complete, pruned, failed, running = load_trials(study)
    assert (complete.value, complete.reports) == (0.8, {1: 0.6, 2: 0.8, 3: 0.7})
    assert complete.seconds == 12.5
    assert pruned.reports[1] == 0.5
    assert math.isnan(pruned.reports[2])
    assert (failed.cause, failed.error, failed.value) == ("error", "ValueError: no", None)
    assert (running.state, running.reports) == ("running", {1: 0.4})
    assert [trial.is_finished for trial in load_trials(study)] == [True, True, True, False]


def test_a_last_line_cut_short_is_not_there_and_the_next_event_follows_whole(study):
    folder = end(take(study, 0), None, [0.4])
    with open(folder.journal_path, "a") as file:
        file.write('{"event": "end", "state": "comp')
    assert states(study) == ["running"]
    end(folder, "failed", cause="killed by signal 9")
    assert [json.loads(line)["event"] for line in folder.journal_path.open()] == ["report", "end"]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"epoch": 1}', '{"event": "report", "epoch": 1}',
     '{"event": "end", "state": "splendid"}', '{"event": "report", "epoch": "one", "value": 1}'],
)  # fmt: skip
def test_a_damaged_line_is_named_with_what_to_do(study, line):
    folder = end(take(study, 0), None, [0.4])
    with open(folder.journal_path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"journal.jsonl, line 2 is damaged.*emove.*anew") as error:
        load_trials(study)
    assert str(error.value).count("emove that line") == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"params": 3}', "{}"])
def test_a_damaged_claim_is_named(study, content):
    take(study, 0).claim_path.write_text(content)
    with pytest.raises(RunError, match=r"trial\.json"):
        load_trials(study)


def test_a_folder_that_is_no_study_or_a_damaged_one_is_refused(study, tmp_path):
    with pytest.raises(RunError, match=r"is not a study: it has no study\.json"):
        StudyDir.open(tmp_path)
    study.record_path.write_text('{"name": "x"}')
    with pytest.raises(RunError, match="is not a study's record: "):
        StudyRecord.load(study)


# ---- retries -------------------------------------------------------------------------------------

KILLED = {"cause": "killed by signal 9 (out of memory?)"}


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ([("failed", KILLED)], "lost"),  # to be tried again
        ([("failed", KILLED), ("failed", KILLED)], "failed"),
        ([("failed", KILLED), ("complete", {"value": 0.5})], "complete"),
        ([("interrupted", {})], "lost"),
        ([("interrupted", {})] * 5, "lost"),  # nobody's fault, so it uses up no retry
        ([("interrupted", {}), ("failed", KILLED)], "lost"),
        ([("failed", KILLED), ("interrupted", {}), ("failed", KILLED)], "failed"),
        ([("failed", {"cause": "error"})], "failed"),  # it would raise again
        ([("failed", {"cause": "not finite"})], "failed"),
    ],
)
def test_a_killed_trial_is_tried_again_as_often_as_allowed_and_counts_once(study, ends, state):
    for attempt, (how, details) in enumerate(ends):
        end(take(study, 0, attempt), how, **details)
    (trial,) = load_trials(study)
    assert (trial.state, len(trial.attempts)) == (state, len(ends))
    record = StudyRecord.load(study)
    assert count_states([trial], record) == {state: 1, "waiting": 3}


def test_what_an_abandoned_attempt_still_writes_does_not_count(study):
    folder = end(take(study, 0), None, [0.4])
    asleep = Journal(folder)
    assert abandon(folder, this_process())
    with pytest.raises(AbandonedError, match="given up by another worker"):
        asleep.report(2, 0.9, num_rungs=0, stop=False)
    with pytest.raises(AbandonedError):
        Journal(folder)
    with open(folder.journal_path, "ab") as file:  # between its look and its write it fell asleep
        file.write(to_line({"event": "end", "state": "complete", "value": 0.9}))
    (trial,) = load_trials(study)
    assert (trial.state, trial.cause, trial.value) == ("lost", "lost", None)


def test_the_first_end_of_an_attempt_is_its_end(study):
    folder = end(take(study, 0), "complete", [0.5], value=0.5)
    end(folder, "failed", cause="error")
    assert states(study) == ["complete"]


def test_of_many_that_find_an_attempt_dead_one_gives_it_up(study):
    folder = take(study, 0)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: abandon(folder, this_process()), range(40)))
    assert won.count(True) == 1


# ---- who lives -----------------------------------------------------------------------------------


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield process
    process.kill()
    process.wait()


def identity(process):
    return {**this_process(), "pid": process.pid, "pid_started": start_time(process.pid)}


def test_a_process_is_known_by_its_pid_and_when_it_began(sleeper):
    one = identity(sleeper)
    assert is_alive(one)
    assert is_alive({**one, "pid_started": one["pid_started"] - 1}) is False  # the pid came again
    assert is_alive({**one, "host": "another"}) is None
    assert is_alive({**one, "machine": "another"}) is None
    sleeper.kill()
    time.sleep(0.1)
    assert is_alive(one) is False  # a zombie, until it is waited for


def test_an_attempt_of_a_dead_worker_on_this_machine_is_given_up_at_once(study, sleeper):
    take(study, 0, worker=identity(sleeper))
    assert recover(study, this_process()) == []
    sleeper.kill()
    sleeper.wait()
    (given_up,) = recover(study, this_process())
    assert given_up.number == 0
    assert recover(study, this_process()) == []
    assert states(study) == ["lost"]


def test_the_trial_of_a_dead_worker_is_ended_before_its_files_are_taken_over(study, sleeper):
    folder = take(study, 0)  # of a worker that is gone
    with Journal(folder) as journal:
        journal.start(identity(sleeper))
    recover(study, this_process(), patience_s=0.1)
    assert sleeper.wait(timeout=5) == -9
    assert states(study) == ["lost"]


def test_an_attempt_elsewhere_is_lost_when_its_heart_is_silent_by_the_file_systems_clock(study):
    folder = take(study, 0, worker={**this_process(), "host": "another"})
    assert recover(study, this_process()) == []
    a_while_ago = time.time() - 119
    os.utime(folder.heartbeat_path, (a_while_ago, a_while_ago))
    assert recover(study, this_process()) == []
    os.utime(folder.heartbeat_path, (a_while_ago - 2, a_while_ago - 2))
    assert len(recover(study, this_process())) == 1
    names = sorted(path.name for path in study.path.iterdir())
    assert names == ["gate.json", "study.json", "trials"]  # nothing of the look at the clock


def test_an_attempt_that_has_ended_is_never_given_up(study):
    end(take(study, 0), "complete", [0.5], value=0.5)
    end(take(study, 1), "failed", cause="error")
    assert recover(study, this_process()) == []
    assert states(study) == ["complete", "failed"]


def test_a_run_is_inherited_whole_from_the_newest_attempt_that_has_a_checkpoint(study):
    first, second, _ = take(study, 0), take(study, 0, 1), take(study, 0, 2)
    assert inherit_run(study, 0, 2) is None
    checkpoint = first.run.checkpoints_dir / "step-00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    (first.run.checkpoints_dir / "last").symlink_to(checkpoint.name)
    (first.run.path / ".lock").touch()
    first.run.metrics_log_path.write_text("{}\n")
    second.run.path.mkdir()  # died before its first checkpoint
    assert inherit_run(study, 0, 2).attempt == 0
    copy = study.attempt(0, 2).run
    found = sorted(str(path.relative_to(copy.path)) for path in copy.path.rglob("*"))
    assert found == [
        "checkpoints", "checkpoints/last", "checkpoints/step-00000003",
        "checkpoints/step-00000003/state.json", "metrics.jsonl",
    ]  # fmt: skip
    assert (copy.checkpoints_dir / "last").readlink().name == "step-00000003"
    take(study, 0, 3)
    assert inherit_run(study, 0, 3).attempt == 2


PARENT_THAT_DIES = """
import os, signal, sys, time
from pathlib import Path
from ml_core.search.pulse import Pulse

if os.fork():
    time.sleep(1.5)
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[2]).touch(), os._exit(0)))
with Pulse(Path(sys.argv[1])):
    time.sleep(30)
"""


def test_a_trials_process_shows_its_life_and_saves_when_its_worker_dies(tmp_path):
    heartbeat, saved = tmp_path / "heartbeat", tmp_path / "saved"
    heartbeat.touch()
    os.utime(heartbeat, (1, 1))
    arguments = [sys.executable, "-c", PARENT_THAT_DIES, str(heartbeat), str(saved)]
    subprocess.run(arguments, check=True, timeout=60)
    assert heartbeat.stat().st_mtime > 1
    deadline = time.monotonic() + 20
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert saved.exists()


# ---- the whole study -----------------------------------------------------------------------------


def test_the_table_and_the_lines_say_how_each_trial_ended(study):
    end(take(study, 0, params={"optimizer.lr": 0.1}), "complete", [0.6, 0.8, 0.8], value=0.8)
    end(take(study, 1, params={"optimizer.lr": 0.2}), "failed", cause="error", error="E: no")
    take(study, 2)
    trials, record = load_trials(study), StudyRecord.load(study)
    write_table(study, trials, record)
    first, second, third = csv.DictReader(study.table_path.open())
    assert (first["number"], first["state"], first["value"], first["best_epoch"]) == (
        "0", "complete", "0.8", "2",
    )  # fmt: skip
    assert float(first["optimizer.lr"]) == 0.1
    assert (second["state"], second["value"], second["error"]) == ("failed", "", "E: no")
    assert third["state"] == "running"
    line = render_trial(trials[0], trials, record)
    assert "trial 0  complete  val_roc_auc 0.8000  best 0.8000 (trial 0)" in line
    assert "optimizer.lr 0.1" in line
    assert "2 to go" in line
    assert commonest_cause(trials) == "1 of 1 by: E: no"


def test_the_best_of_a_loss_is_the_lowest_and_pruned_trials_do_not_count(tmp_path):
    study = make_study(tmp_path, metric="val_loss", direction="minimize")
    end(take(study, 0), "complete", [0.6, 0.5, 0.7], value=0.5)
    end(take(study, 1), "complete", [0.3, 0.4], value=0.3)
    end(take(study, 2), "pruned", [0.1], value=0.1)
    trials, record = load_trials(study), StudyRecord.load(study)
    assert best_trial(trials, record).number == 1
    assert best_epoch(trials[0], record) == 2
    assert best_trial([], record) is None


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A study of tiny patches of which no trial has run, and its config."""
    monkeypatch.setattr(begin, "probe_effects", lambda *_: [])
    data = write_tiny_pcam(tmp_path / "data")
    space = {"optimizer.lr": {"choices": [0.1, 0.2]}, "data.batch_size": {"choices": [16, 32]}}
    path = write_config(tmp_path / "config.yaml", data, search={"space": space})
    config = Config.load(path)
    return begin.begin_study(config, num_workers=1, command="a test"), config


def test_a_study_keeps_what_the_data_gate_let_through(begun):
    study, _ = begun
    gate = load_gate(study)
    assert set(gate.hashes) == {"train", "valid"}
    assert gate.record["policy"] == "refuse"
    of_study = Config.load(study.config_path)
    assert of_study.training.num_threads is not None
    same = trial_config(study, {"optimizer.lr": 0.1})
    assert (same.search, same.optimizer.lr) == (None, 0.1)
    assert [check.num_patches for check in trial_checks(study, of_study, same, gate)] == [96, 64]
    fewer = same.with_overrides(["data.max_patches=16"])
    assert [check.num_patches for check in trial_checks(study, of_study, fewer, gate)] == [16, 16]
    study.gate_path.write_text("{}")
    with pytest.raises(RunError, match=r"gate.json .* missing or damaged"):
        load_gate(study)


def test_a_study_does_not_go_on_with_other_data_or_another_config(begun):
    study, config = begun
    kept = json.dumps(DataStamps.of(config.data.data_path).to_json())
    stamps = DataStamps.from_json(json.loads(kept))
    stamps.check()
    with h5py.File(split_paths(config.data.data_path, "train").x, "r+") as file:
        file["x"][0, 0, 0, 0] ^= 1
    with pytest.raises(DataError, match="written or replaced while the study ran"):
        stamps.check()
    with pytest.raises(DataError, match="has changed since the study began: its SHA-256"):
        resume(study.path, command="a test")
    study.config_path.write_text(study.config_path.read_text() + "\n")
    with pytest.raises(RunError, match="is not what the study began with"):
        resume(study.path, command="a test")
