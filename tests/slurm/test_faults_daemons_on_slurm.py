"""Row 14: Slurm's own daemons die and come back, and one task of an array is started again."""

import random
import time

import pytest
from conftest import AT_ONCE
from training_job import INTERVAL, NUM_STEPS, check_completed, in_groups, went_on_at

from ml_core.runs import RunDir, RunRecord

pytestmark = pytest.mark.slurm


def restart_the_controller(slurm):
    slurm.restart_slurmctld()


def restart_both_nodes(slurm):
    for node in ("n1", "n2"):
        slurm.kill_slurmd(node)
    for node in ("n1", "n2"):
        slurm.start_slurmd(node)


@pytest.mark.parametrize("restart", [restart_the_controller, restart_both_nodes])
def test_a_training_outlives_the_daemons_of_slurm(
    wide_slurm, training, straight, draws, fault, restart
):
    restarts = fault(14, f"amid a training: {restart.__name__.replace('_', ' ')}")
    rng = random.Random(restart.__name__)
    for group in in_groups(draws(full=20, short=1), AT_ONCE):
        jobs = held_jobs(wide_slurm, training, group, rng)
        restart(wide_slurm)
        for case, job in jobs:
            with restarts.case(case):
                job.release()
                assert job.ends_as("COMPLETED")["Restarts"] == "0"
                check_completed(job.run, straight)
                assert went_on_at(job.run) == [0] and job.log.count(", start ") == 1


def test_a_training_ends_well_while_the_controller_is_away(
    wide_slurm, training, straight, draws, fault
):
    endings = fault(14, "no controller while trainings end")
    rng = random.Random(14)
    for group in in_groups(draws(full=20, short=1), AT_ONCE):
        jobs = held_jobs(wide_slurm, training, group, rng)
        time.sleep(6)  # until the controller has saved that they run
        wide_slurm.kill_slurmctld()
        for _, job in jobs:
            job.release()
        for _, job in jobs:
            wait_until_trained(job.run)
        time.sleep(10 * rng.random())
        wide_slurm.start_slurmctld()
        for case, job in jobs:
            with endings.case(case):
                assert job.ends_as("COMPLETED")["Restarts"] == "0"
                check_completed(job.run, straight)


def held_jobs(slurm, training, group, rng):
    """Return jobs that wait at random steps, each with its name."""
    jobs = []
    for number in group:
        step = rng.randrange(NUM_STEPS)
        job = training(slurm)
        job.hold(step)
        job.submit()
        jobs.append((f"job {number}, at step {step}", job))
    for _, job in jobs:
        job.wait_until_held()
    return jobs


def wait_until_trained(run: RunDir) -> None:
    """Return once the run says that it is complete, of which Slurm cannot be asked now."""
    deadline = time.monotonic() + 60
    while RunRecord.load(run).status != "completed":
        assert time.monotonic() < deadline, RunRecord.load(run)
        time.sleep(0.2)


def test_of_an_array_the_task_that_is_requeued_comes_back_and_no_other(
    wide_slurm, training, straight, draws, fault
):
    tasks = fault(14, "one task of an array requeued")
    rng = random.Random(141)
    for group in in_groups(draws(full=20, short=1), AT_ONCE):
        arrays = []
        for number in group:
            job, step, again = training(wide_slurm), rng.randrange(INTERVAL, NUM_STEPS), number % 2
            job.hold(step)
            seeds = (("--set", "seed=42"), ("--set", "seed=43"))
            job.submit(array_arguments=seeds)
            arrays.append((f"task {again} at step {step}", job, again))
        for _, job, _ in arrays:
            for task in (0, 1):
                wait_for_run(job, task)
        for _, job, again in arrays:
            wide_slurm.run("scontrol", "requeue", f"{job.id}_{again}")
            job.release()
        for case, job, again in arrays:
            with tasks.case(case):
                check_array(wide_slurm, job, again, straight)


def wait_for_run(job, task: int) -> None:
    """Return once a task of the array has logged the step at which it waits."""
    step = int((job.folder / "gate-0").read_text())
    job.wait_for(
        lambda: any(log.read_bytes().count(b"\n") >= step for log in logs_of(job, task)),
        f"task {task} waits",
    )


def logs_of(job, task: int):
    return job.folder.glob(f"runs/tiny/*-seed{42 + task}/steps.jsonl")


def check_array(slurm, job, again: int, bits) -> None:
    """Fail unless the task `again` was started twice, the other once, and both are complete."""
    for task in (0, 1):
        record = slurm.wait(f"{job.id}_{task}", "COMPLETED", timeout_s=300)
        assert record["Restarts"] == str(int(task == again)), f"task {task}"
        log = job.request.log_path(f"{job.id}_{task}").read_text()
        assert log.count(", start ") == 1 + (task == again), log
        (run,) = (RunDir(path.parent) for path in logs_of(job, task))
        assert RunRecord.load(run).status == "completed"
        if task == 0:  # the seed of the undisturbed run
            check_completed(run, bits)
