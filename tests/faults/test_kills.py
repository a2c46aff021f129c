"""A job killed at random moments, again and again, is the job that was never killed."""

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import one_job
import pytest
from jobs import PATIENCE_S, Jobs, finish, output_of, results, shared_jobs, start
from one_job import INTERVAL, newest_run, num_lost_steps, phase_of

from ml_core.runs import read_jsonl
from ml_core.solver import trainer
from ml_core.tracking import ExperimentTracker

pytestmark = pytest.mark.faults

MOST_KILLS = 6  # of one job; then it is left to end


@pytest.fixture
def jobs(tmp_path_factory) -> Jobs:
    return shared_jobs(tmp_path_factory.getbasetemp())


def killed_job(jobs: Jobs, config: Path, rng: random.Random, most: int) -> list[str]:
    """Kill the job at `most` random moments, if it lasts, and let it end; return when it was."""
    moments = []
    for _ in range(most):
        child = start(config)
        child.join(jobs.seconds * rng.random())
        child.kill()
        child.join()
        if child.exitcode != -9:
            break
        moments.append(phase_of(config))
        lost = num_lost_steps(config.parent)
        assert lost <= INTERVAL, f"{lost} steps were lost by a kill"
    assert finish(config) == 0, output_of(config)
    return moments


def test_a_job_killed_at_random_moments_ends_in_the_bits_of_one_that_was_not(jobs, draws, fault):
    kills = fault(1, "SIGKILL at random moments of start, training, evaluation and report")
    rng, num_left, num_jobs = random.Random(1), draws(full=200, short=4), 0
    while num_left:
        num_jobs += 1
        config = jobs.new(num_workers=1 if num_jobs % 8 == 0 else 0)
        moments, why = [], ""
        try:
            moments = killed_job(jobs, config, rng, min(num_left, MOST_KILLS))
            assert results(config) == jobs.bits, "other bits than those of the job left alone"
        except AssertionError as error:
            why = str(error) or "an assert failed"
        for number, moment in enumerate(moments or ["start"] * bool(why), start=1):
            case = f"job {num_jobs}, kill {number}, during {moment}"
            kills.lost(case, why) if why else kills.held(case)
        num_left -= min(num_left, len(moments) or bool(why))
        shutil.rmtree(config.parent)


@pytest.mark.parametrize("epoch", range(1, one_job.EPOCHS + 1))
def test_a_job_killed_between_the_line_of_an_epoch_and_its_checkpoint_is_the_same(
    jobs, fault, epoch
):
    # The last step of the epoch was saved in mid-epoch, before the epoch was over and logged.
    kills = fault(1, f"SIGKILL after the line of epoch {epoch}, before its checkpoint")
    config = jobs.new()
    child = start(config, KillAfterLine(epoch))
    child.join(PATIENCE_S)
    with kills.case("kill"):
        assert child.exitcode == -9
        assert finish(config) == 0, output_of(config)
        assert results(config) == jobs.bits, "other bits than those of the job left alone"


@dataclass(frozen=True)
class KillAfterLine:
    """Makes the process die once the line of an epoch is written."""

    epoch: int

    def __call__(self) -> None:
        write = ExperimentTracker.log_metrics

        def write_and_die(tracker, epoch, metrics, *, step=None):
            write(tracker, epoch, metrics, step=step)
            if epoch == self.epoch:
                os.kill(os.getpid(), signal.SIGKILL)

        ExperimentTracker.log_metrics = write_and_die


# ---- the same with a protection switched off ---------------------------------------------------


def log_what_was_logged() -> None:
    ExperimentTracker.truncate = lambda *_: None


def forget_the_moments() -> None:
    trainer.load_optimizer_state = lambda *_: None


def kill_between_checkpoints(jobs: Jobs) -> Path:
    """Return a job killed after a step that no checkpoint has."""
    for _ in range(30):
        config = jobs.new()
        child = start(config)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and child.is_alive():
            run = newest_run(config.parent)
            if run is not None and len(list(read_jsonl(run.steps_log_path))) in (5, 7):
                break
        child.kill()
        child.join()
        if child.exitcode == -9 and num_lost_steps(config.parent) > 0:
            return config
    raise AssertionError("no kill fell between two checkpoints")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (log_what_was_logged, "logs not cut back: steps are logged twice"),
        (forget_the_moments, "no optimizer state in the checkpoint: other bits"),
    ],
)
def test_without_it_a_killed_job_is_another_one(jobs, fault, change, what):
    control = fault(24, what)
    config = kill_between_checkpoints(jobs)
    with control.case(what):
        try:
            same = finish(config, change) == 0 and results(config) == jobs.bits
        except AssertionError:
            same = False
        assert not same, "nothing differs: the test above shows nothing"
