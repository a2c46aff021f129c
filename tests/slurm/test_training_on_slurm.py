"""Real trainings as jobs of a real Slurm: over two nodes, stopped and taken up again, or failing.

What is disturbed again and again, and counted, is in test_faults_*_on_slurm.py.
"""

import time

import pytest
from paced_ml_core import EVALUATION
from run_bits import final_bits
from training_job import (
    TrainingJob,
    check_completed,
    config_in,
    generations,
    train_here,
    went_on_at,
)

from ml_core.checkpoint import load_last
from ml_core.lease import Lineage
from ml_core.runs import RunRecord

pytestmark = pytest.mark.slurm

ELASTIC = {"training": {"numerics": "elastic", "micro_batch": 4}}


def test_two_ranks_on_two_nodes_have_the_bits_of_one(slurm, training, tmp_path, tiny_data):
    job = training(slurm, **ELASTIC)
    job.submit(nodes=2)
    alone = train_here(config_in(tmp_path / "alone", tiny_data, **ELASTIC))
    assert job.ends_as("COMPLETED")["NodeList"] == "n[1-2]"
    check_completed(job.run, final_bits(alone))


def test_two_ranks_are_told_to_stop_and_both_go_on(slurm, training, tmp_path, tiny_data):
    alone = train_here(config_in(tmp_path / "alone", tiny_data, **ELASTIC))
    job = training(slurm, **ELASTIC)
    job.hold(5)
    job.submit(nodes=2)
    job.wait_until_held()
    slurm.run("scontrol", "requeue", job.id)
    assert job.ends_as("COMPLETED")["Restarts"] == "1"
    check_completed(job.run, final_bits(alone))
    assert len(generations(job.run)) == 2, "rank 0 alone enters itself, once per start"
    assert went_on_at(job.run)[1] >= 5, "what was saved as they were told to stop was lost"


def test_a_cancelled_training_has_saved_stays_cancelled_and_is_taken_up_by_hand(
    slurm, training, straight
):
    job = training(slurm)
    job.hold(5)
    job.submit()
    job.wait_until_held()
    slurm.run("scancel", job.id)
    job.wait_for(lambda: RunRecord.load(job.run).status == "interrupted", "it has saved")
    assert load_last(job.run.checkpoints_dir).state["train"]["step"] == 6  # the step it was at
    time.sleep(10)  # a requeue would have started it again by now
    assert job.state["JobState"] == "CANCELLED" and job.state["Restarts"] == "0"
    assert "start 2" not in job.log

    again = TrainingJob(slurm, job.config, "train", "--resume", str(job.run.path))
    (job.folder / "gate-0").unlink()
    again.submit()
    again.ends_as("COMPLETED")
    check_completed(job.run, straight)
    assert went_on_at(job.run) == [0, 6]


def test_a_job_lost_before_its_first_checkpoint_begins_anew(slurm, training, straight):
    job = training(slurm)
    job.hold(1)
    job.submit()
    job.wait_until_held()
    node = job.state["NodeList"]
    slurm.kill_slurmd(node, with_jobs=True)
    try:
        job.wait_for(lambda: job.state["Restarts"] == "1", "it is requeued")
    finally:
        slurm.start_slurmd(node)
    job.ends_as("COMPLETED")
    lost, run = job.runs
    check_completed(run, straight)
    assert RunRecord.load(lost).status != "running", "it looks as if it still trained"


@pytest.mark.parametrize("held_at", [7, EVALUATION], ids=["trains", "evaluates"])
def test_a_run_job_told_to_stop_ends_with_its_report(slurm, training, straight, held_at):
    job = training(slurm)
    job.words = ("run", *job.words[1:])
    job.hold(held_at)
    job.submit()
    job.wait_until_held()
    slurm.run("scontrol", "requeue", job.id)
    assert job.ends_as("COMPLETED")["Restarts"] == "1"
    check_completed(job.run, straight)
    assert job.run.metrics_path.is_file() and job.run.report_path.is_file()


def test_a_training_that_takes_more_memory_than_asked_says_so_and_is_not_tried_again(
    slurm, training
):
    job = training(slurm)
    job.hold(1)
    job.submit(mem_mb=100)
    record = job.ends_as("FAILED")
    assert (record["ExitCode"], record["Restarts"]) == ("137:0", "0")
    assert "exceeded memory limit" in job.log
    assert "leaving out" not in job.log


def test_data_that_a_node_does_not_have_are_named_with_the_node(slurm, training, tiny_data):
    slurm.kill_slurmd("n2")
    slurm.start_slurmd("n2", without=tiny_data)
    try:
        slurm.wait_for_idle()
        job = training(slurm)
        job.submit("--nodelist=n2")
        record = job.ends_as("FAILED")
    finally:
        slurm.kill_slurmd("n2")
        slurm.start_slurmd("n2")
    assert (record["ExitCode"], record["Restarts"]) == ("2:0", "0"), "no other node was tried"
    assert f"error: {tiny_data}" in job.log and "Traceback" not in job.log
    assert f"job {job.id}, start 1, on n2" in job.log


def test_of_two_jobs_that_take_up_one_run_one_is_refused_and_says_why(slurm, training, straight):
    first = training(slurm)
    first.hold(5)
    first.submit()
    first.wait_until_held()
    second = TrainingJob(slurm, first.config, "train", "--resume", str(first.run.path))
    second.submit()
    assert second.ends_as("FAILED")["ExitCode"] == "2:0"
    assert f"another process is training in {first.run.path} (job {first.id}," in second.log
    first.release()
    first.ends_as("COMPLETED")
    check_completed(first.run, straight)
    assert len(Lineage.read(first.run.lease_path).generations) == 1
