"""Rows 13 and 15: a node that is lost while its training lives on, and one where nothing works."""

import random
import shutil

import pytest
from conftest import AT_ONCE
from training_job import (
    INTERVAL,
    NUM_STEPS,
    TrainingJob,
    check_completed,
    generations,
    in_groups,
    went_on_at,
)

from ml_core.checkpoint.files import writer_of
from ml_core.runs import RunRecord

pytestmark = pytest.mark.slurm


def test_of_two_copies_of_a_job_the_one_on_the_lost_node_is_fenced_off(
    wide_slurm, training, straight, draws, fault
):
    # What the first copy says then is read by nobody: its srun, which wrote the log, has given up.
    losses = fault(13, "slurmd killed, its training goes on while Slurm starts it elsewhere")
    rng = random.Random(13)
    for group in in_groups(draws(full=20, short=2), AT_ONCE):
        wide_slurm.run("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
        jobs = []
        for number in group:
            step = rng.randrange(INTERVAL, NUM_STEPS)
            job = training(wide_slurm)
            job.hold(step)
            job.hold(rng.randrange(step, NUM_STEPS), start=1)
            job.submit()
            jobs.append((f"loss {number}, at step {step}", job))
        for _, job in jobs:
            job.wait_until_held()
        wide_slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME")
        wide_slurm.kill_slurmd("n1")
        for case, job in jobs:
            with losses.case(case):
                job.wait_until_held(start=1)
                first, _ = generations(job.run)
                assert first.pid in wide_slurm.processes, "there is no first copy to be fenced"
                job.release()  # it trains on, and would save
                job.wait_for(
                    lambda pid=first.pid: pid not in wide_slurm.processes, "the first is stopped"
                )
                assert RunRecord.load(job.run).status == "running", "the record is the second's"
                job.release(start=1)
        wide_slurm.start_slurmd("n1")
        for case, job in jobs:
            with losses.case(f"{case}: its end"):
                assert job.ends_as("COMPLETED")["Restarts"] == "1"
                check_completed(job.run, straight)
                first, second = generations(job.run)
                assert first.token not in tokens_after(job.run, second.taken_over_at_step)
                assert "what it did here is not its result" in job.log


def tokens_after(run, step):
    """Return who wrote the checkpoints of the run after `step`."""
    found = run.checkpoints_dir.glob("step-*")
    return {writer_of(path) for path in found if int(path.name[5:]) > step}


@pytest.fixture
def interrupted(wide_slurm, training):
    """The config of a job whose run was cancelled at step 6, and has saved."""
    job = training(wide_slurm)
    job.hold(5)
    job.submit()
    job.wait_until_held()
    wide_slurm.run("scancel", job.id)
    job.wait_for(lambda: RunRecord.load(job.run).status == "interrupted", "it has saved")
    return job


def test_of_two_jobs_that_take_up_one_run_at_once_one_trains(
    wide_slurm, interrupted, tmp_path, straight, draws, fault
):
    races = fault(13, "two jobs that take up one run at the same time")
    for group in in_groups(draws(full=20, short=1), AT_ONCE):
        pairs = []
        for number in group:
            folder = tmp_path / f"race-{number}"
            shutil.copytree(interrupted.folder, folder, symlinks=True)
            (run,) = folder.glob("runs/tiny/*")
            pair = []
            for name in ("a", "b"):
                words = ("train", "--resume", str(run))
                job = TrainingJob(wide_slurm, folder / "config.yaml", *words)
                job.hold(8)
                (folder / "at-0").unlink(missing_ok=True)
                job.submit(name=name)
                pair.append(job)
            pairs.append((f"race {number}", pair))
        for case, pair in pairs:
            with races.case(case):
                pair[0].wait_for(lambda pair=pair: loser(pair) is not None, "one is refused")
                lost = loser(pair)
                won = pair[1 - pair.index(lost)]
                assert "another process is training in" in lost.log and "Traceback" not in lost.log
                won.release()
                won.ends_as("COMPLETED")
                check_completed(won.run, straight)
                assert went_on_at(won.run) == [0, 6]


def loser(pair):
    """Return the job of the two that has ended with our code for a refusal, if one has."""
    return next((job for job in pair if job.state["ExitCode"] == "2:0"), None)


def test_a_job_leaves_bad_nodes_out_and_is_tried_thrice_at_most(
    wide_slurm, training, straight, draws, fault
):
    tries = fault(15, "a node, or all, on which Python or ml-core fails at once")
    rng = random.Random(15)
    for group in in_groups(draws(full=20, short=3), AT_ONCE):
        jobs = []
        for number in group:
            what = rng.choice(["python", "ml-core"])
            all_are_bad = number % 4 == 2
            job = training(wide_slurm)
            for node in ("n1", "n2") if all_are_bad else ("n1",):
                (job.folder / f"broken-{node}").write_text(what)
            job.submit()
            jobs.append((f"{what}, {'on all nodes' if all_are_bad else 'on n1'}", all_are_bad, job))
        for case, all_are_bad, job in jobs:
            with tries.case(case):
                record = job.ends_as("FAILED" if all_are_bad else "COMPLETED")
                assert int(record["Restarts"]) <= 2
                if all_are_bad:
                    assert "error: failed on n1,n2 and not tried again" in job.log
                else:
                    assert (record["NodeList"], record["ExcNodeList"]) == ("n2", "n1")
                    check_completed(job.run, straight)
