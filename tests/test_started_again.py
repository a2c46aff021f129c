"""A job that Slurm starts again after its run was trained: it does what is left, and only that."""

import os
import signal

import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.checkpoint import load_last
from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.pipeline import run as run_stage
from ml_core.pipeline import train as train_stage
from ml_core.pipeline.parts import run_in_training
from ml_core.runs import RunDir, RunRecord
from ml_core.scheduler_signals import OF_A_SCHEDULER
from ml_core.solver.interrupt import StoppedError, stopped_at_once


@pytest.fixture
def config(tmp_path):
    data = write_tiny_pcam(tmp_path / "data")
    return Config.load(write_config(tmp_path / "config.yaml", data))


@pytest.fixture
def trained(config, monkeypatch):
    """A run that job 7 has trained to its end."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return RunDir.open(train_stage.train(config, command="a test")["runs"][0]["run"])


@pytest.fixture
def scored(monkeypatch):
    """What was done after training, in order; `scored.signals` come while it is evaluated."""
    return Scored(monkeypatch)


class Scored(list):
    def __init__(self, monkeypatch):
        super().__init__()
        self.signals = []
        results = {
            "evaluate": {"metrics": {}},
            "explain": {},
            "slice_predictions": {},
            "report": {"report": "report.html"},
        }
        for name, result in results.items():
            monkeypatch.setattr(run_stage, name, self._stage(name, result))

    def _stage(self, name, result):
        def stage(*_args, **_options):
            for number in self.signals if name == "evaluate" else ():
                os.kill(os.getpid(), number)
            self.append(name)
            return dict(result)

        return stage


ALL = ["evaluate", "explain", "slice_predictions", "report"]


def test_a_finished_training_started_again_by_its_job_is_done(trained, monkeypatch, caplog):
    before = trained.record_path.read_bytes()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with caplog.at_level("INFO"):
        again = train_stage.resume(trained.path, command="a test")
    assert (again["run"], again["status"]) == (str(trained.path), "completed")
    assert again["best"] == RunRecord.load(trained).best
    assert "this job had finished it" in caplog.text
    assert trained.record_path.read_bytes() == before


@pytest.mark.parametrize("job", ["8", None])
def test_by_anybody_else_a_finished_training_is_not_resumed(trained, monkeypatch, job):
    monkeypatch.delenv("SLURM_JOB_ID")
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    with pytest.raises(RunError, match="there is nothing to resume"):
        train_stage.resume(trained.path, command="a test")


@pytest.mark.parametrize("job", ["7", None])
def test_a_run_that_is_trained_goes_on_to_its_report_for_a_job_and_for_a_person(
    trained, scored, monkeypatch, job
):
    monkeypatch.delenv("SLURM_JOB_ID")
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    result = run_stage.resume(trained.path, command="a test")
    assert scored == ALL
    assert (result["status"], result["report"]) == ("completed", "report.html")


@pytest.mark.parametrize("number", OF_A_SCHEDULER)
def test_a_job_told_to_stop_while_it_evaluates_leaves_that_to_its_next_start(
    config, scored, caplog, number
):
    scored.signals = [number, signal.SIGTERM]
    with caplog.at_level("INFO"):
        result = run_stage.run(config, command="a test")
    assert (result["status"], scored) == ("interrupted", [])
    (run,) = result["runs"]
    said = f"{number.name}: trained, but not evaluated to the end; go on with: ml-core run --resume"
    assert said in caplog.text
    scored.signals = []
    assert run_stage.resume(RunDir.open(run["run"]).path, command="a test")["status"] == "completed"
    assert scored == ALL


@pytest.mark.parametrize("while_it", ["saves the last epoch", "closes its record"])
def test_a_job_told_to_stop_after_the_last_step_leaves_the_evaluation_to_its_next_start(
    config, scored, monkeypatch, caplog, while_it
):
    """Slurm tells of a time limit once: who evaluates in spite of it is killed by the limit."""
    told = tell_to_stop_when(monkeypatch, while_it)
    with caplog.at_level("INFO"):
        result = run_stage.run(config, command="a test")
    assert (told, result["status"], scored) == (["SIGUSR1"], "interrupted", [])
    (run,) = result["runs"]
    assert RunRecord.load(RunDir.open(run["run"])).status == "completed"
    assert (
        "told to stop: trained, but not evaluated; go on with: ml-core run --resume" in caplog.text
    )


def test_a_training_told_to_stop_when_it_is_done_is_done_and_begins_no_other(
    config, monkeypatch, caplog
):
    tell_to_stop_when(monkeypatch, "saves the last epoch")
    assert train_stage.train(config, command="a test")["status"] == "completed"
    with caplog.at_level("INFO"):
        two = config.model_copy(update={"seed": 42, "seeds": [42, 43]})
        result = train_stage.train(two, command="a test")
    assert (result["status"], len(result["runs"])) == ("interrupted", 1)
    assert "told to stop before seed 43 was begun" in caplog.text


def test_a_training_told_to_stop_before_its_first_step_takes_that_and_saves(config, monkeypatch):
    tell_to_stop_when(monkeypatch, "builds the model")
    result = train_stage.train(config, command="a test")
    assert result["status"] == "interrupted"
    assert (
        load_last(RunDir.open(result["runs"][0]["run"]).checkpoints_dir).state["train"]["step"] == 1
    )


MOMENTS = {
    "builds the model": "describe_model",
    "saves the last epoch": "load_best",
    "closes its record": "utc_now",
}


def tell_to_stop_when(monkeypatch, while_it):
    """Let SIGUSR1 come in a moment of each training; return the names of those that came."""
    name = MOMENTS[while_it]
    real, told = getattr(run_in_training, name), []

    def at_that_moment(*arguments):
        assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL, "this would end the process"
        os.kill(os.getpid(), signal.SIGUSR1)
        told.append("SIGUSR1")
        return real(*arguments)

    monkeypatch.setattr(run_in_training, name, at_that_moment)
    return told


def test_a_signal_ends_the_body_once_and_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in OF_A_SCHEDULER]
    with pytest.raises(StoppedError, match="SIGUSR1"), stopped_at_once():
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # which Slurm sends as well
    assert [signal.getsignal(number) for number in OF_A_SCHEDULER] == before


def test_a_child_of_the_process_is_not_ended_by_its_handler():
    with stopped_at_once():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
