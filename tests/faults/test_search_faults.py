"""What kills a search, done to a real one: its trials, its workers, its disk, the whole command."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.checkpoint import load_last
from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.pipeline.searching import begin_study as begin
from ml_core.pipeline.searching import finish_study as finish
from ml_core.pipeline.searching.begin_study import begin_study
from ml_core.pipeline.searching.study_data import DataStamps
from ml_core.pipeline.searching.trial_worker import run_worker
from ml_core.pipeline.tune import PRELOAD, resume, tune
from ml_core.runs import RunRecord, read_jsonl
from ml_core.search.crew import Crew, start_server
from ml_core.search.process import this_process
from ml_core.search.recovery import recover
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.trials import load_trials

pytestmark = pytest.mark.faults
GOOD, WORSE = {"optimizer.lr": 0.003}, {"optimizer.lr": 0.0003}
RAISES = {"training.device": "cuda:7"}  # a valid config, but there is no such device here
OF_THE_MOMENT = ("time", "seconds", "train_patches_per_s", "patches_per_s")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(autouse=True)
def without_probe_and_page(monkeypatch):
    """They cost more than the trials here and have tests of their own."""
    monkeypatch.setattr(begin, "probe_effects", lambda *_: [])
    monkeypatch.setattr(finish, "study_report", lambda _: {})


def config_of(data_dir, folder, *, epochs=12, **search):
    search = {"pruner": {"name": "none"}, **search}
    path = write_config(
        folder / "config.yaml", data_dir,
        search=search, training={"epochs": epochs, "num_threads": 1},
    )  # fmt: skip
    return Config.load(path)


def trials_list(*trials):
    return {"sampler": "list", "trials": list(trials)}


def study_in(folder):
    (record,) = (folder / "runs").rglob("study.json")
    return StudyDir(record.parent)


def wait_for(look, timeout_s=60):
    """Return what `look` gives as soon as that is something."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if found := look():
                return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def first_report(folder, number):
    """Return the attempt at slot `number` once it has reported an epoch."""

    def look():
        attempt = study_in(folder).attempt(number)
        events = [json.loads(line) for line in attempt.journal_path.read_text().splitlines()]
        return attempt if any(event["event"] == "report" for event in events) else None

    return wait_for(look)


def pids(attempt):
    """Return the pid of the worker and of the trial's process."""
    start = json.loads(attempt.journal_path.read_text().splitlines()[0])
    return json.loads(attempt.claim_path.read_text())["worker"]["pid"], start["pid"]


@contextlib.contextmanager
def meanwhile(act):
    """Run `act` beside what is inside; what it raises is raised at the end."""
    errors = []

    def run():
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


def computed(trial):
    """Return all that a trial's run computed, to the bit."""
    logs = [
        {key: value for key, value in line.items() if key not in OF_THE_MOMENT}
        for log in (trial.run.metrics_log_path, trial.run.steps_log_path)
        for line in read_jsonl(log)
    ]
    return logs, load_last(trial.run.checkpoints_dir).weights_sha256, trial.value, trial.reports


def crew_for(study, config, size=1):
    start_server(PRELOAD)
    stamps = json.dumps(DataStamps.of(config.data.data_path).to_json())
    arguments = [str(study.path), "a test", stamps, "[]"]
    return Crew(run_worker, arguments, size=size, max_replaced=0)


def test_a_study_ends_complete_though_a_trial_and_a_worker_are_killed_and_a_trial_raises(
    data_dir, tmp_path
):
    config = config_of(data_dir, tmp_path, **trials_list(GOOD, GOOD, WORSE, WORSE, RAISES))

    def kill():
        os.kill(pids(first_report(tmp_path, 0))[1], signal.SIGKILL)
        os.kill(pids(first_report(tmp_path, 2))[0], signal.SIGKILL)

    with meanwhile(kill):
        result = tune(config, workers=2, command="a test")
    assert result["status"] == "completed"
    assert result["counts"] == {"complete": 4, "failed": 1}
    trials = load_trials(StudyDir.open(result["study"]))
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert [len(trial.attempts) for trial in trials] == [2, 1, 2, 1, 1]
    killed, lost = trials[0].attempts[0], trials[2].attempts[0]
    assert (killed.state, killed.cause) == ("failed", "killed by signal 9 (out of memory?)")
    assert (lost.state, lost.cause) == ("lost", "lost")
    assert trials[4].cause == "error"
    assert "cuda:7" in trials[4].error
    # What was gone on with computed, to the bit, what an undisturbed trial did.
    assert RunRecord.load(trials[0].run).resumed_at
    assert computed(trials[0]) == computed(trials[1])
    assert computed(trials[2]) == computed(trials[3])
    assert RunRecord.load(trials[2].run).study["attempt"] == 1


def test_another_takes_the_place_of_the_only_worker(data_dir, tmp_path, caplog):
    config = config_of(data_dir, tmp_path, **trials_list(GOOD))

    def kill():
        os.kill(pids(first_report(tmp_path, 0))[0], signal.SIGKILL)

    with meanwhile(kill):
        result = tune(config, workers=1, command="a test")
    assert result["counts"] == {"complete": 1}
    assert "was killed by signal 9; another takes its place" in caplog.text


def test_a_worker_that_wakes_up_after_its_trial_was_given_up_changes_nothing(data_dir, tmp_path):
    config = config_of(data_dir, tmp_path, epochs=6, **trials_list(GOOD))
    study = begin_study(config, num_workers=1, command="a test")
    record = StudyRecord.load(study)
    record.lost_after_s = 0.3
    record.save(study)
    crew = crew_for(study, config)
    asleep = first_report(tmp_path, 0)
    worker, trial = pids(asleep)
    os.kill(worker, signal.SIGSTOP)
    os.kill(trial, signal.SIGSTOP)
    try:
        time.sleep(0.5)
        before = asleep.journal_path.read_bytes()

        def elsewhere(_):
            return None  # on another machine only the heartbeat is seen

        assert len(recover(study, this_process(), alive=elsewhere)) == 1
        assert recover(study, this_process(), alive=elsewhere) == []  # once is enough
        result = resume(study.path, workers=1, command="a test")
    finally:
        os.kill(trial, signal.SIGCONT)
        os.kill(worker, signal.SIGCONT)
    wait_for(lambda: crew.wait(0.1) or not crew.is_at_work)
    assert crew.refusals == []
    assert crew.num_dead == 0
    assert result["counts"] == {"complete": 1}
    (trial,) = load_trials(study)
    assert [attempt.state for attempt in trial.attempts] == ["lost", "complete"]
    assert asleep.journal_path.read_bytes() == before


def test_workers_of_two_commands_share_the_slots_of_a_study(data_dir, tmp_path):
    config = config_of(data_dir, tmp_path, epochs=1, **trials_list(*[GOOD] * 3, *[WORSE] * 3))
    study = begin_study(config, num_workers=1, command="a test")
    other = crew_for(study, config)
    result = resume(study.path, workers=1, command="a test")
    assert result["counts"] == {"complete": 6}
    wait_for(lambda: other.wait(0.1) or not other.is_at_work)
    assert (other.refusals, other.num_dead) == ([], 0)
    trials = load_trials(study)
    assert [len(trial.attempts) for trial in trials] == [1] * 6
    assert len({trial.last.worker["pid"] for trial in trials}) == 2


def test_one_worker_and_two_give_the_same_random_trials_bit_for_bit(data_dir, tmp_path):
    space = {"optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    space["model.hidden_units"] = {"choices": [[8], [16, 8]]}
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        config = config_of(data_dir, folder, epochs=2, sampler="random", num_trials=3, space=space)
        result = tune(config, workers=workers, command="a test")
        trials = load_trials(StudyDir.open(result["study"]))
        found.append([(trial.params, computed(trial)) for trial in trials])
    assert found[0] == found[1]
    assert len({json.dumps(params) for params, _ in found[0]}) == 3


def test_an_interrupted_study_goes_on_where_it_stopped(data_dir, tmp_path):
    config = config_of(data_dir, tmp_path, epochs=40, **trials_list(GOOD, GOOD))

    def interrupt():
        first_report(tmp_path, 0)
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(interrupt):
        result = tune(config, workers=1, command="a test")
    assert result["status"] == "interrupted"
    study = StudyDir.open(result["study"])
    assert StudyRecord.load(study).status == "interrupted"
    (trial,) = load_trials(study)
    assert (trial.state, trial.cause) == ("lost", "interrupted")
    assert resume(study.path, command="a test")["counts"] == {"complete": 2}
    record = StudyRecord.load(study)
    assert (record.status, len(record.resumed_at)) == ("completed", 1)
    first, second = load_trials(study)
    assert [attempt.cause for attempt in first.attempts] == ["interrupted", ""]
    assert RunRecord.load(first.attempts[0].folder.run).status == "interrupted"  # it could save
    assert computed(first) == computed(second)


def test_a_full_disk_stops_the_study_in_words_and_it_goes_on_when_there_is_room(
    data_dir, tmp_path, small_disk
):
    config = config_of(data_dir, tmp_path, epochs=1, **trials_list(GOOD, GOOD))
    config = config.model_copy(update={"output_dir": small_disk / "runs"})
    with pytest.raises(RunError, match=r"cannot be written: .*tune --resume"):
        tune(config, workers=1, command="a test")
    study = study_in(small_disk)
    assert not any(trial.is_finished for trial in load_trials(study))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert resume(study.path, command="a test")["counts"] == {"complete": 2}


def test_a_study_whose_trials_all_fail_says_what_most_of_them_failed_of(data_dir, tmp_path):
    config = config_of(data_dir, tmp_path, **trials_list(RAISES, RAISES))
    with pytest.raises(RunError, match=r"none of the 2 trials .*2 of 2 by: ConfigError: .*cuda:7"):
        tune(config, workers=1, command="a test")
    study = study_in(tmp_path)
    assert StudyRecord.load(study).status == "failed"
    assert len(study.table_path.read_text().splitlines()) == 3
