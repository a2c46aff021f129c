"""A disk that is full at any moment of a job: it ends in words, and goes on when there is space."""

import random
import shutil
import subprocess

import pytest
from jobs import Jobs, finish, output_of, results, shared_jobs
from one_job import newest_run
from traced_child import tmpfs

from ml_core.checkpoint import load_last
from ml_core.errors import CheckpointError

pytestmark = pytest.mark.faults

PAGE = 4096  # a tmpfs counts whole pages, and each folder is one


@pytest.fixture
def jobs(tmp_path_factory) -> Jobs:
    return shared_jobs(tmp_path_factory.getbasetemp())


def test_a_job_whose_disk_is_full_says_so_and_ends_in_the_same_bits_once_there_is_space(
    jobs,
    draws,
    fault,
):
    disks = fault(3, "a disk that is full at a random moment of a job")
    rng, num_full = random.Random(3), 0
    for number in range(draws(full=40, short=2)):
        config = jobs.new()
        size = round(jobs.num_bytes * rng.uniform(0.02, 1.0)) // PAGE * PAGE + PAGE
        with tmpfs(config.parent / "runs", str(size)), disks.case(f"disk {number}, {size} bytes"):
            code = finish(config)
            output = output_of(config)
            assert code in (0, 2), f"exit code {code}: {output}"
            assert "Traceback" not in output, output
            if code == 2:
                num_full += 1
                assert "No space left on device" in output, output
            _see_that_checkpoints_are_whole(config)
            remount = ["mount", "-o", "remount,size=64m", str(config.parent / "runs")]
            subprocess.run(remount, check=True)
            assert finish(config) == 0, output_of(config)
            assert results(config) == jobs.bits, "other bits than those of the job left alone"
        shutil.rmtree(config.parent)
    assert num_full, "no disk was full"


def _see_that_checkpoints_are_whole(config) -> None:
    run = newest_run(config.parent)
    if run is None:
        return
    try:
        load_last(run.checkpoints_dir)
    except CheckpointError as error:
        assert "holds no checkpoint" in str(error), str(error)
