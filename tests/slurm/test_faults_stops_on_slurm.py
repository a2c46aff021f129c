"""Rows 11 and 12: a training that Slurm stops, and starts again, ends as if nobody had."""

import random

import pytest
from conftest import AT_ONCE, MEMORY_MB
from training_job import INTERVAL, NUM_STEPS, check_completed, in_groups, went_on_at

pytestmark = pytest.mark.slurm


def test_a_training_at_its_time_limit_goes_on_to_the_same_bits(
    wide_slurm, training, straight, draws, fault
):
    limits = fault(11, "the time limit of a training under srun")
    rng = random.Random(11)
    for group in in_groups(draws(full=20, short=2), AT_ONCE):
        jobs = []
        for number in group:
            step, num_workers = rng.randrange(NUM_STEPS), rng.randrange(2)
            job = training(wide_slurm, data={"num_workers": num_workers})
            job.hold(step)
            # Slurm tells it up to a minute before, and it must be ready to hear it
            job.submit(time="00:02:00", mem_mb=MEMORY_MB)
            jobs.append((f"limit {number}, at step {step}, {num_workers} readers", step, job))
        for case, step, job in jobs:
            with limits.case(case):
                assert job.ends_as("COMPLETED")["Restarts"] == "1"
                check_completed(job.run, straight)
                assert went_on_at(job.run) == [0, step + 1], "the step it was at was not saved"
                assert job.log.count("asks to be started again") == 1


@pytest.mark.parametrize("grace_s", [0, 15])
def test_a_preempted_training_goes_on_to_the_same_bits(
    wide_slurm, training, straight, draws, fault, grace_s
):
    preemptions = fault(12, f"preemption with {grace_s} s of grace")
    wide_slurm.set_grace(grace_s)
    rng = random.Random(grace_s)
    for group in in_groups(draws(full=20, short=2), AT_ONCE):
        jobs = []
        for number in group:
            step = rng.randrange(INTERVAL, NUM_STEPS)  # there is a checkpoint by then
            job = training(wide_slurm)
            job.hold(step)
            job.submit(partition="low")
            jobs.append((f"preemption {number}, at step {step}", step, job))
        for _, _, job in jobs:
            job.wait_until_held()
        urgent = "#!/bin/bash\nsleep 2\n"
        wide_slurm.sbatch(urgent, "--partition=high", "--nodes=2", "--exclusive")
        for case, step, job in jobs:
            with preemptions.case(case):
                assert job.ends_as("COMPLETED")["Restarts"] == "1"
                check_completed(job.run, straight)
                first, went_on = went_on_at(job.run)
                assert (first, went_on >= step + 1 - INTERVAL) == (0, True), f"from {went_on} on"
                assert grace_s == 0 or went_on == step + 1, "it was told in time"
