"""Row 18: the disk of a run is served from elsewhere, and the server stops, dies or loses files."""

import errno
import os
import random
import shutil
import time

import pytest
from jobs import PATIENCE_S, Jobs, finish, output_of, results, shared_jobs, start
from remote_disk import RemoteDisk

pytestmark = pytest.mark.faults

ERRORS = {"ESTALE": errno.ESTALE, "EIO": errno.EIO}
# what a run directory asks of its server, but for looking whether something is there; not read,
# by which the server takes its orders: it would end
CALLS = ("openat", "open", "pwrite64", "pread64", "fsync", "rename", "mkdir", "unlink")


@pytest.fixture
def jobs(tmp_path_factory) -> Jobs:
    return shared_jobs(tmp_path_factory.getbasetemp())


def disk_of(config, *, locks: bool = False) -> RemoteDisk:
    return RemoteDisk(config.parent / "server", config.parent / "runs", locks=locks)


def wait_for_checkpoint(config, child) -> None:
    """Return once the job has saved; looks at the server's files, which nobody breaks."""
    deadline = time.monotonic() + PATIENCE_S
    while child.is_alive() and not list(config.parent.glob("server/tiny/*/checkpoints/step-*")):
        assert time.monotonic() < deadline, output_of(config)
        time.sleep(0.002)


def check_told(code, config) -> None:
    """Fail unless the job ended well, or with an error in words."""
    output = output_of(config)
    assert code in (0, 2), f"exit code {code}: {output}"
    assert "Traceback" not in output, output


def check_goes_on(jobs, config) -> None:
    """Fail unless the job, started again on a disk that works, ends in the same bits."""
    assert finish(config) == 0, output_of(config)
    assert results(config) == jobs.bits, "other bits than those of the job left alone"


def test_a_job_waits_for_a_server_that_stops_and_goes_on(jobs, draws, fault):
    stops = fault(18, "the server of the runs stops for seconds, then goes on")
    rng = random.Random(18)
    for number in range(draws(full=20, short=1)):
        config = jobs.new()
        seconds = rng.uniform(1, 5)
        with disk_of(config) as disk, stops.case(f"stop {number} of {seconds:.1f} s"):
            child = start(config)
            wait_for_checkpoint(config, child)
            time.sleep(jobs.seconds * 0.5 * rng.random())
            disk.stop()
            time.sleep(seconds)
            disk.go_on()
            child.join(PATIENCE_S)
            assert child.exitcode == 0, output_of(config)
            assert results(config) == jobs.bits
        shutil.rmtree(config.parent)


def test_a_job_whose_server_dies_says_so_and_goes_on_once_it_is_back(jobs, draws, fault):
    deaths = fault(18, "the server of the runs dies, and comes back after the job has ended")
    rng = random.Random(181)
    for number in range(draws(full=20, short=1)):
        config = jobs.new()
        with disk_of(config) as disk, deaths.case(f"death {number}"):
            child = start(config)
            wait_for_checkpoint(config, child)
            time.sleep(jobs.seconds * 0.3 * rng.random())
            disk.kill()
            child.join(PATIENCE_S)
            check_told(child.exitcode, config)
            disk.start()
            check_goes_on(jobs, config)
        shutil.rmtree(config.parent)


@pytest.mark.parametrize("error", ERRORS)
def test_a_job_whose_files_go_stale_says_so_and_goes_on_elsewhere(jobs, draws, fault, error):
    stale = fault(18, f"{error} from a random call of the server on, until the job has ended")
    rng = random.Random(error)
    num_told = 0
    for number in range(draws(full=20, short=2)):
        config = jobs.new()
        call, first = rng.choice(CALLS), rng.randrange(1, 12)
        with disk_of(config) as disk, stale.case(f"{number}: {call} {first}"):
            child = start(config)
            wait_for_checkpoint(config, child)
            with disk.failing(call, error, first=first):
                child.join(PATIENCE_S)
            check_told(child.exitcode, config)
            num_told += child.exitcode == 2
            if child.exitcode == 2:
                assert os.strerror(ERRORS[error]) in output_of(config)
            check_goes_on(jobs, config)
        shutil.rmtree(config.parent)
    assert num_told, "no call failed"


@pytest.mark.parametrize("error", ERRORS)
def test_a_job_whose_data_go_stale_says_so_and_has_read_nothing_wrong(jobs, draws, fault, error):
    stale = fault(18, f"{error} from a random read of the data on, until the job has ended")
    rng = random.Random(f"data {error}")
    num_told = 0
    for number in range(draws(full=20, short=1)):
        config = jobs.new()
        folder = config.parent / "data"
        config.write_text(config.read_text().replace(str(jobs.data), str(folder)))
        shutil.copytree(jobs.data, config.parent / "server")
        first = rng.randrange(1, 60)
        with RemoteDisk(config.parent / "server", folder) as disk, stale.case(f"{number}: {first}"):
            with disk.failing("pread64", error, first=first):
                code = finish(config)
            check_told(code, config)
            if code == 2:
                num_told += 1
                assert str(folder) in output_of(config), output_of(config)
            check_goes_on(jobs, config)
        shutil.rmtree(config.parent)
    assert num_told, "no read failed"


def test_a_disk_that_denies_locks_is_warned_of_and_trained_on(jobs, fault):
    denied = fault(18, "locks denied by the server")
    config = jobs.new()
    with (
        disk_of(config, locks=True) as disk,
        denied.case("ENOLCK"),
        disk.failing("flock", "ENOLCK"),
    ):
        assert finish(config) == 0, output_of(config)
        assert "lies on a disk without locks" in output_of(config)
        assert results(config) == jobs.bits
