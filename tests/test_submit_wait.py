"""How `ml-core submit --wait` follows jobs to their end, and from which disks data are staged."""

from pathlib import Path

import pytest
from fake_queue import FakeQueue

from ml_core.cluster.submission import Submission, SubmittedJob
from ml_core.errors import ClusterError
from ml_core.pipeline.submitting.shared_disk import is_on_network
from ml_core.pipeline.submitting.waiting import wait_for_jobs
from ml_core.preflight.file_systems import parse_mounts


@pytest.fixture
def queue(tmp_path, monkeypatch):
    fake = FakeQueue(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin_dir}:/usr/bin:/bin")
    return fake


@pytest.fixture
def follow(tmp_path):
    """Wait for jobs, by id; an array is given as (id, number of tasks)."""

    def follow(*ids, **options):
        jobs = tuple(_job(each, tmp_path) for each in ids)
        submission = Submission(
            folder=tmp_path, command="ml-core submit ...", verb="train", user="root",
            submitted_at="2026-11-22T22:07:52+00:00", cluster=None, profile="generic-cpu",
            commit=None, jobs=jobs,
        )  # fmt: skip
        return wait_for_jobs(submission, **{"look_s": 0, "patience_s": 0, **options})

    return follow


def _job(each, folder: Path) -> SubmittedJob:
    job_id, num_tasks = each if isinstance(each, tuple) else (each, None)
    log = "job-%j.log" if num_tasks is None else "job-%A_%a.log"
    return SubmittedJob(job_id, "job", num_tasks, f"{folder}/{log}", "submit it anew")


def test_all_well_is_when_every_job_and_task_has_completed(queue, follow, said):
    queue.show(j7="COMPLETED", j8_0="RUNNING", j8_1="COMPLETED")
    queue.show_next(j7="COMPLETED", j8_0="COMPLETED", j8_1="COMPLETED")
    assert follow("7", ("8", 2)) is True
    told = [line.partition(":")[0] for line in said.messages]
    assert told == ["7 (job)", "8_1 (job)", "8_0 (job)"]  # each once, as it ends


def test_one_task_that_fails_is_told_with_its_error_and_all_is_not_well(
    queue, follow, said, tmp_path
):
    (tmp_path / "job-8_1.log").write_text("epoch 1\nerror: disk is full.\n")
    queue.show(j8_0="COMPLETED", j8_1="FAILED 2")
    assert follow(("8", 2)) is False
    assert "8_1 (job): it was refused: disk is full." in said.messages


def test_a_job_that_is_put_back_a_moment_later_is_not_told_as_ended(queue, follow, said):
    queue.show(j7="NODE_FAIL")
    queue.show_next(j7="COMPLETED")
    assert follow("7") is True
    assert len(said.messages) == 1


def test_a_cancelled_chain_is_over_though_some_of_it_never_started(queue, follow, said):
    queue.show(j7="CANCELLED", **{"j8_0-1": "CANCELLED"})
    assert follow("7", ("8", 2)) is False
    assert [line[:18] for line in said.messages] == ["7 (job): it was ca", "8_[0-1] (job): it "]


def test_a_task_of_which_nothing_is_left_is_no_good_end(queue, follow, said):
    queue.show(j8_0="COMPLETED", j8_2="COMPLETED")
    assert follow(("8", 3)) is False
    assert "8_1 (job): it was cancelled while it waited, it seems" in said.text


def test_an_array_that_was_cancelled_before_it_began_is_told_once(queue, follow, said):
    queue.show(j8="CANCELLED")  # as 22.05 lists it then
    assert follow(("8", 2)) is False
    assert len(said.messages) == 1


def test_a_job_that_slurm_has_forgotten_is_told_from_its_log(queue, follow, said, tmp_path):
    (tmp_path / "job-7.log").write_text("error: no such split.\n")
    assert follow("7") is False
    assert "Slurm has forgotten how it ended" in said.text
    assert "no such split" in said.text


def test_a_controller_that_is_away_is_waited_for(queue, follow, said):
    queue.show(j7="COMPLETED")
    queue.go_down("once")
    assert follow("7", patience_s=60) is True
    assert "controller cannot be reached" in said.text
    queue.go_down("for good")
    with pytest.raises(ClusterError, match="controller cannot be reached"):
        follow("7", patience_s=0)


@pytest.mark.parametrize(
    ("folder", "staged"),
    [("/data/pcam", True), ("/scratch local/pcam", False), ("/shared/pcam", True), ("/x", False)],
)
def test_data_are_staged_from_disks_that_are_shared(folder, staged):
    mounts = parse_mounts(
        "/dev/sda1 / ext4 rw 0 0\nserver:/data /data nfs4 rw 0 0\n"
        "/dev/sdb1 /scratch\\040local xfs rw 0 0\ngpfs1 /shared gpfs rw 0 0\n"
    )
    assert is_on_network(Path(folder), mounts) is staged
    assert is_on_network(Path(folder), []) is False  # a system that does not tell
