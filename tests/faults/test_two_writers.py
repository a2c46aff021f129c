"""A node is given up while its job still trains: the copy that goes on is the only one that counts.

Slurm was seen to do this: the job was started again elsewhere, with the same job id and a restart
count of 1, while its first copy was alive and writing.
"""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from jobs import PATIENCE_S, Jobs, output_of, shared_jobs, start
from one_job import check_logs, newest_run
from run_bits import final_bits

from ml_core.checkpoint import load_last, save_checkpoint
from ml_core.checkpoint.files import writer_of
from ml_core.lease import Lease, Lineage
from ml_core.runs import RunDir, RunRecord
from ml_core.tracking.log_file import LogFile

pytestmark = pytest.mark.faults


@pytest.fixture
def jobs(tmp_path_factory) -> Jobs:
    return shared_jobs(tmp_path_factory.getbasetemp())


def slurm(restart: int) -> dict[str, str]:
    """Return what Slurm tells a job that it has started again `restart` times."""
    return {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": str(restart)}


def checkpoints(config: Path) -> list[Path]:
    return sorted(config.parent.glob("runs/tiny/*/checkpoints/step-*"))


def wait_for(look, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.002)


def two_writers(jobs: Jobs, config: Path, rng: random.Random, change=None, *, frozen: bool):
    """Start the job, and again while the first copy lives; return both, ended.

    The first one is `frozen` when the second takes over, and thaws while that one trains; or it
    goes on all the time.
    """
    first = start(config, change, slurm(0))
    wait_for(lambda: checkpoints(config) or not first.is_alive(), "there is a checkpoint")
    time.sleep(jobs.seconds * 0.1 * rng.random())
    if frozen:
        os.kill(first.pid, signal.SIGSTOP)
    second = start(config, None, slurm(1))
    if frozen:
        run = newest_run(config.parent)
        wait_for(
            lambda: len(Lineage.read(run.lease_path).generations) == 2 or not second.is_alive(),
            "the second has taken over",
        )
        time.sleep(jobs.seconds * 0.3 * rng.random())
        os.kill(first.pid, signal.SIGCONT)
    for child in (first, second):
        child.join(PATIENCE_S)
    return first, second


# by the lease, or first by a log that is no longer its own
STOPPED = ("was taken over by job 12, restart 1", "by a process that took the run over")


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen, then thawed", "never frozen"])
def test_of_two_writers_the_first_is_told_to_stop_and_nothing_of_it_counts(
    jobs, draws, fault, frozen
):
    pairs = fault(13, f"two writers, the first {'frozen and thawed' if frozen else 'never frozen'}")
    rng = random.Random(13)
    for number in range(draws(full=25, short=1)):
        config = jobs.new()
        first, second = two_writers(jobs, config, rng, frozen=frozen)
        output = (config.parent / "output.log").read_text()
        with pairs.case(f"pair {number}"):
            run = newest_run(config.parent)
            assert second.exitcode == 0, output_of(config)
            generations = Lineage.read(run.lease_path).generations
            if len(generations) == 2:  # else the first was done before the second came
                assert first.exitcode == 2, f"the first ended with {first.exitcode}"
                assert any(said in output for said in STOPPED), output
                assert generations[0].token not in _after(run, generations[1].taken_over_at_step)
            check_logs(run)
            assert final_bits(run) == jobs.bits[:3], "other bits than those of the job left alone"
            assert RunRecord.load(run).status == "completed"
            assert RunRecord.load(run).error is None
        shutil.rmtree(config.parent)


def _after(run: RunDir, step: int) -> set[str | None]:
    """Return the tokens in checkpoints after `step`."""
    found = run.checkpoints_dir.glob("step-*")
    return {writer_of(path) for path in found if int(path.name[5:]) > step}


# ---- the same with a protection switched off ---------------------------------------------------


def never_look() -> None:
    Lease.check = lambda _: None
    LogFile.sync = lambda log: os.fsync(log._file.fileno())  # it sees that its logs were replaced


def test_a_first_writer_that_never_looks_goes_on_to_the_end(jobs, fault):
    control = fault(24, "no check of the lease: the first of two writers is not stopped")
    with control.case("no check"):
        for draw in range(5):
            config = jobs.new()
            first, _ = two_writers(jobs, config, random.Random(draw), never_look, frozen=True)
            if first.exitcode == 0:
                break
        assert first.exitcode == 0, "it was stopped all the same: the test above shows nothing"


def save(run: RunDir, step: int, lease: Lease) -> None:
    save_checkpoint(
        run.checkpoints_dir, step, model=torch.nn.Linear(1, 1), model_spec={}, optimizer=None,
        state={"step": step}, best=False, lease=lease,
    )  # fmt: skip


@pytest.mark.parametrize("is_on", [True, False], ids=["with the lineage", "without"])
def test_what_slips_through_between_look_and_rename_is_refused_by_the_lineage(
    tmp_path, monkeypatch, fault, is_on
):
    what = "a save that looked before the takeover and renamed after it"
    row = fault(13, what) if is_on else fault(24, f"no lineage: {what} is loaded")
    run = RunDir.create(tmp_path, "run")
    first = Lease.take(run, job="12", restart=0)
    first.take_over_at(0)
    save(run, 10, first)
    Lease.take(run, job="12", restart=1).take_over_at(10)
    monkeypatch.setattr(first, "check", lambda: None)
    save(run, 20, first)
    if not is_on:
        monkeypatch.setattr(Lineage, "accepts", lambda *_: True)
    with row.case("one save"):
        assert load_last(run.checkpoints_dir).state["step"] == (10 if is_on else 20)
