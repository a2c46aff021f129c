"""Workers that read batches are killed, stopped, starved: said in time, and no batch is lost."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pcam import make_patches, write_split
from torch.utils.data import DataLoader

from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.data.pcam import PCAMDataset
from ml_core.data.worker_faults import TIMEOUT_S, explained, in_plain_words
from ml_core.errors import DataError

pytestmark = pytest.mark.faults

NUM, BATCH_SIZE = 400, 8
TEST_FOLDERS = [str(folder) for folder in Path(__file__).parents[:2]]
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    labels = np.arange(NUM) % 2
    write_split(folder, "train", make_patches(labels), labels)
    return folder


def loader_of(folder, num_workers, *, start_batch=0):
    paths = split_paths(folder, "train")
    loader = build_loader(
        PCAMDataset(paths.x, paths.y), BATCH_SIZE, shuffle=True, seed=3, num_workers=num_workers
    )
    loader.batch_sampler.set_epoch(1, start_batch)
    return loader


def bytes_of(batch):
    return batch.index.numpy().tobytes() + batch.images.numpy().tobytes()


def interrupted(loader, after, do, timeout_s=TIMEOUT_S):
    """Read `after` batches, then `do` something to the workers' pids, then read on to the error.

    Return the bytes of the batches that came, what was said, and after how many seconds.
    """
    came = []
    batches = DataLoader.__iter__(loader)
    pids = [worker.pid for worker in batches._workers]
    started = time.monotonic()
    try:
        with explained():
            for batch in in_plain_words(batches, timeout_s):
                came.append(bytes_of(batch))
                if len(came) == after:
                    started = time.monotonic()
                    do(pids)
    except DataError as error:
        return came, str(error), time.monotonic() - started, pids
    return came, "", time.monotonic() - started, pids


def is_there(pid):
    return Path(f"/proc/{pid}").exists()  # a process that ended and was not waited for is


def check_went_on(folder, straight, came):
    """Assert that what came is a beginning of the epoch, and that a restart brings the rest."""
    assert came == straight[: len(came)], "other batches came, or in another order"
    rest = loader_of(folder, 2, start_batch=len(came))
    assert came + [bytes_of(batch) for batch in rest] == straight, "a batch was skipped or changed"


@pytest.fixture(scope="module")
def straight(folder):
    return [bytes_of(batch) for batch in loader_of(folder, 0)]


def test_a_worker_that_is_killed_is_said_and_no_batch_is_lost(folder, straight, draws, fault):
    kills = fault(8, "SIGKILL of a worker that reads")
    rng = np.random.default_rng(0)
    for number in range(draws(20, 4)):
        after = int(rng.integers(1, len(straight) - 10))
        victim = int(rng.integers(2))
        with kills.case(f"kill {number}, after batch {after}"):
            came, said, seconds, _ = interrupted(
                loader_of(folder, 2), after, lambda pids, v=victim: os.kill(pids[v], signal.SIGKILL)
            )
            assert "a worker that reads data" in said and "No batch was skipped" in said
            assert seconds < LIMIT_S
            check_went_on(folder, straight, came)


def test_a_worker_that_is_stopped_is_said_and_ended(folder, straight, draws, fault):
    stops = fault(8, "SIGSTOP of a worker that reads")
    assert TIMEOUT_S < LIMIT_S
    for victim in range(draws(2, 1)):
        with stops.case(f"worker {victim}"):
            came, said, seconds, pids = interrupted(
                loader_of(folder, 2),
                5,
                lambda pids, v=victim: os.kill(pids[v], signal.SIGSTOP),
                timeout_s=draws(TIMEOUT_S, 3),
            )
            assert re.match(r"no batch came for \d+ s: a worker that reads data hangs", said), said
            assert seconds < LIMIT_S
            check_went_on(folder, straight, came)
            assert not any(map(is_there, pids)), "a stopped worker was left behind"


SUSPENDED = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from test_workers import DataLoader, in_plain_words, loader_of
loader = loader_of(Path(sys.argv[1]), 1, start_batch=44)
loader.dataset.transform = lambda patch: time.sleep(0.1) or patch.astype("i8")
batches = in_plain_words(DataLoader.__iter__(loader), timeout_s=2)
next(batches)
print("reading", flush=True)
print(1 + len(list(batches)), flush=True)
"""


def test_a_job_that_is_suspended_as_a_whole_has_not_waited(folder, fault):
    suspended = fault(8, "the whole job suspended for longer than a batch may take")
    command = [sys.executable, "-c", SUSPENDED.format(path=TEST_FOLDERS), folder]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as reading:
        assert reading.stdout.readline() == "reading\n"
        os.killpg(reading.pid, signal.SIGSTOP)
        time.sleep(4)
        os.killpg(reading.pid, signal.SIGCONT)
        said = reading.communicate(timeout=LIMIT_S)[0]
    with suspended.case("for 4 s, where 2 are allowed"):
        assert said == "6\n" and reading.returncode == 0


def test_a_worker_without_memory_is_said(folder, straight, draws, fault):
    starved = fault(8, "a worker's memory limited (prlimit)")

    def starve(pids):
        for pid in pids:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
            limit = pages * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))

    for after in range(1, draws(11, 3)):
        with starved.case(f"after batch {after}"):
            came, said, seconds, _ = interrupted(loader_of(folder, 2), after, starve, 4)
            assert said and seconds < LIMIT_S, "nothing was said"
            assert "Traceback" not in said, said
            check_went_on(folder, straight, came)


SMALL_SHARED_MEMORY = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from test_workers import interrupted, loader_of
came, said, seconds, _ = interrupted(loader_of(Path(sys.argv[1]), 2), 0, None, 10)
print(len(came), round(seconds), said)
"""


def test_shared_memory_that_is_too_small_is_said_with_what_to_do(folder, fault):
    small = fault(8, "/dev/shm of 64 KiB")
    code = SMALL_SHARED_MEMORY.format(path=TEST_FOLDERS)
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "
    command = ["unshare", "-m", "sh", "-c", f'{mount}"$0" "$@"', sys.executable, "-c", code, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("a small /dev/shm needs the right to mount one")
    with small.case("batches of 216 KiB"):
        assert "of 64 KiB free" in done.stdout, done.stdout + done.stderr[-500:]
        assert "data.num_workers: 0" in done.stdout, done.stdout


def test_without_the_watch_a_stopped_worker_is_waited_for_for_ever(folder, fault):
    control = fault(24, "no watch over the workers: a stopped one is never noticed")
    loader = loader_of(folder, 1)
    loader.timeout = 1  # torch's own, which does not cover the whole way of a batch
    batches = DataLoader.__iter__(loader)
    next(batches)
    (worker,) = batches._workers
    os.kill(worker.pid, signal.SIGSTOP)
    with control.case("for 4 s"), pytest.raises(TimeoutError), no_longer_than(4):
        for _ in batches:
            pass
    with contextlib.suppress(RuntimeError):
        worker.kill()
        worker.join()


@contextlib.contextmanager
def no_longer_than(seconds):
    def give_up(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_an_error_that_no_worker_caused_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), explained():
        torch.ones(2, 3) @ torch.ones(2, 3)
