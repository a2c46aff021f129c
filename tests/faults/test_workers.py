"""Workers that read batches are killed, stopped, starved, signalled, orphaned: no batch is lost."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pcam import make_patches, write_split
from torch.utils.data import DataLoader

from ml_core.data import worker_faults
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


def loader_of(folder, num_workers, *, start_batch=0, start_method=None):
    paths = split_paths(folder, "train")
    loader = build_loader(
        PCAMDataset(paths.x, paths.y),
        BATCH_SIZE,
        shuffle=True,
        seed=3,
        num_workers=num_workers,
        start_method=start_method,
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
            limit = pages * resource.getpagesize() // 2  # what it has it keeps; no more is given
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
    # told of a batch, the trainer goes to fetch it from the worker: torch's clock has stopped then
    assert batches._worker_result_queue._reader.poll(LIMIT_S), "no second batch was sent"
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


A_TRAINER = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = {path!r}

def main(folder, start_method, means, num_readers):
    from ml_core.solver.interrupt import StopRequest
    from test_workers import explained, loader_of
    loader = loader_of(Path(folder), int(num_readers), start_method=start_method)
    if means == "none":
        loader.worker_init_fn = None
    with StopRequest() as stop, explained():
        print("starting", flush=True)
        while not stop:
            for batch in loader:
                readers = [str(worker.pid) for worker in loader._iterator._workers]
                print("reading", *readers, flush=True)
                time.sleep(0.01)
                if stop:
                    time.sleep(1)  # as a step takes, or a save
                    print("saved", stop.name, flush=True)
                    break

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@contextlib.contextmanager
def a_trainer(folder, tmp_path, start_method, means="own", num_readers=2):
    """Yield a process of a session of its own that trains with readers, and end the session."""
    script = tmp_path / "trainer.py"
    script.write_text(A_TRAINER.format(path=TEST_FOLDERS))
    command = [sys.executable, script, folder, start_method, means, str(num_readers)]
    trainer = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield trainer
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trainer.pid, signal.SIGKILL)
        trainer.communicate()


def readers_of(trainer):
    """Return the pids of the readers once a batch has come."""
    for line in trainer.stdout:
        if line.startswith("reading"):
            return [int(pid) for pid in line.split()[1:]]
    raise AssertionError(f"nothing was read: {trainer.stderr.read()}")


def live(pids):
    """Return those of `pids` that run; who ended and was not waited for does not."""
    stats = [Path(f"/proc/{pid}/stat") for pid in pids]
    with_state = [(stat.parent.name, stat.read_text().rpartition(") ")[2][0])
                  for stat in stats if stat.exists()]  # fmt: skip
    return [int(pid) for pid, state in with_state if state != "Z"]


def ended_within(pids, seconds):
    deadline = time.monotonic() + seconds
    while live(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not live(pids)


def test_readers_end_with_a_trainer_that_was_killed(folder, tmp_path, draws, fault):
    orphans = fault(8, "SIGKILL of the trainer alone: its readers")
    ways = [("forkserver", 2), ("fork", 12), ("spawn", 2)]
    for start_method, num in ways[: draws(3, 2)]:
        with (
            orphans.case(f"{start_method}, {num} readers"),
            a_trainer(folder, tmp_path, start_method, num_readers=num) as trainer,
        ):
            pids = readers_of(trainer)
            trainer.kill()
            trainer.wait()
            assert ended_within(pids, 3), "readers outlived their trainer"


def test_torch_alone_lets_readers_of_a_server_of_forks_outlive_the_trainer(folder, tmp_path, fault):
    control = fault(24, "readers that do not watch their trainer outlive it")
    with control.case("forkserver"), a_trainer(folder, tmp_path, "forkserver", "none") as trainer:
        pids = readers_of(trainer)
        trainer.kill()
        trainer.wait()
        assert not ended_within(pids, 7)  # torch looks every 5 s


def test_a_signal_to_the_whole_job_is_a_request_to_the_trainer_alone(
    folder, tmp_path, draws, fault
):
    requests = fault(8, "a scheduler's signals to all processes of a job")
    pairs = [(start_method, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")
             for start_method in ("fork", "forkserver", "spawn")]  # fmt: skip
    for start_method, name in pairs[: draws(len(pairs), 2)]:
        with (
            requests.case(f"{name}, {start_method}"),
            a_trainer(folder, tmp_path, start_method) as trainer,
        ):
            readers_of(trainer)
            os.killpg(trainer.pid, signal.Signals[name])
            said, warned = trainer.communicate(timeout=LIMIT_S)
            assert said.endswith(f"saved {name}\n") and trainer.returncode == 0, warned
            assert not warned


def test_a_signal_to_a_job_whose_readers_only_start_ends_none(folder, tmp_path, draws, fault):
    requests = fault(8, "a scheduler's signals while readers start")
    pairs = [(start_method, wait_s) for wait_s in (0.5, 0.1, 1.0, 2.0)
             for start_method in ("forkserver", "spawn")]  # fmt: skip
    for start_method, wait_s in pairs[: draws(len(pairs), 1)]:
        with (
            requests.case(f"{start_method}, {wait_s} s after the start"),
            a_trainer(folder, tmp_path, start_method) as trainer,
        ):
            assert trainer.stdout.readline() == "starting\n"
            time.sleep(wait_s)
            os.killpg(trainer.pid, signal.SIGUSR1)
            said, warned = trainer.communicate(timeout=LIMIT_S)
            assert said.endswith("saved SIGUSR1\n") and trainer.returncode == 0, warned
            assert not warned


def test_a_reader_that_is_busy_ends_when_its_trainer_says_so(folder):
    loader = loader_of(folder, 1)
    loader.dataset.transform = lambda patch: time.sleep(600)
    (worker,) = DataLoader.__iter__(loader)._workers
    time.sleep(0.5)
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # by someone else
    worker.join(timeout=1.5)
    assert worker.is_alive(), "a reader heeded somebody else than its trainer"
    worker.terminate()
    with contextlib.suppress(RuntimeError):
        worker.join(timeout=5)
    assert not worker.is_alive()


def test_an_error_that_no_worker_caused_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), explained():
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_second_death_while_the_first_is_explained_changes_no_word(folder, monkeypatch, fault):
    """torch raises from a signal handler, so also in the lines that explain what it raised."""
    deaths = fault(8, "two readers that hang die one after the other")
    kill, seen = worker_faults._kill, []

    def kill_and_be_interrupted(workers):
        kill(workers)
        if threading.current_thread() is threading.main_thread():
            seen.append(1)
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(worker_faults, "_kill", kill_and_be_interrupted)
    with deaths.case("the second death"):
        _, said, _, _ = interrupted(
            loader_of(folder, 2), 5, lambda pids: os.kill(pids[0], signal.SIGSTOP), timeout_s=2
        )
        assert seen, "nothing interrupted the explanation"
        assert said.startswith("no batch came for 2 s"), said
