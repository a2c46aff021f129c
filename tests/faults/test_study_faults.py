"""A study whose workers die, sleep or have wrong clocks, and whose journals are torn."""

import datetime as dt
import multiprocessing
import os
import random
import signal
import time

import pytest
from search_steps import end, make_study, take

import ml_core.runs
from ml_core.search import recovery
from ml_core.search.journal import Journal
from ml_core.search.process import is_alive, start_time, this_process
from ml_core.search.recovery import recover
from ml_core.search.trials import load_attempts, load_trials
from ml_core.search.worker import Calls, work

pytestmark = pytest.mark.faults

NUM_TRIALS = 12
LONGEST_BLOCK_S = 5.0  # before the next worker has taken a slot
HOUR_S = 3600
FORK = multiprocessing.get_context("fork")
ENDING = ("complete", [0.5, 0.75, float("nan"), 0.875])


def run_trial(folder):
    """Do an instant trial: three epochs and an end."""
    with Journal(folder) as journal:
        journal.start(this_process())
        for epoch in (1, 2, 3):
            journal.report(epoch, epoch / 4, num_rungs=0, stop=False)
            time.sleep(0.002)
        journal.end("complete", value=0.75)
    os._exit(0)


def work_on(study, clock_s=0):
    """Work as a worker process does, whose clock is `clock_s` seconds off."""
    os.setpgid(0, 0)  # so that its trial dies with it, as a job's processes do
    if clock_s:
        set_clock(clock_s)
    work(study, Calls(run_trial, check=lambda: None, should_stop=lambda: False))


def set_clock(seconds):
    """Put this process's clock wrong, wherever the code reads it."""
    right, now = time.time, dt.datetime.now
    time.time = lambda: right() + seconds
    off = dt.timedelta(seconds=seconds)
    ml_core.runs.utc_now = lambda: (now(dt.UTC) + off).isoformat(timespec="seconds")


def start(study, **kwargs):
    process = FORK.Process(target=work_on, args=(study,), kwargs=kwargs)
    process.start()
    return process


def kill(process):
    """SIGKILL a worker together with its trial."""
    for _ in range(200):  # until it has a group of its own
        try:
            os.killpg(process.pid, signal.SIGKILL)
            break
        except ProcessLookupError:
            time.sleep(0.005)
    process.join()


def wait_for_the_dead(study):
    """Return when no killed trial can write any more: it may be in the middle of a write."""
    while any(one.process and is_alive(one.process) for one in load_attempts(study)):
        time.sleep(0.01)
    time.sleep(0.1)  # for one that had not yet said who it is


def finish(study):
    """Let one more worker finish the study; return the seconds until it had taken a slot."""
    before, started = len(load_attempts(study)), time.monotonic()
    worker, blocked_s = start(study), None
    while worker.is_alive() or blocked_s is None:
        if blocked_s is None and (len(load_attempts(study)) > before or not worker.is_alive()):
            blocked_s = time.monotonic() - started
        time.sleep(0.01)
        assert time.monotonic() - started < 60, "the study is not finished after a minute"
    worker.join()
    assert worker.exitcode == 0, f"the worker ended with {worker.exitcode}"
    return blocked_s


def check_whole(study, num_lost):
    """Assert that each slot is complete, once, and that `num_lost` attempts were given up."""
    trials = load_trials(study)
    assert [trial.number for trial in trials] == list(range(NUM_TRIALS))
    assert [trial.state for trial in trials] == ["complete"] * NUM_TRIALS
    states = [attempt.state for attempt in load_attempts(study)]
    assert states.count("complete") == NUM_TRIALS
    assert states.count("running") == 0
    assert states.count("lost") == num_lost, states


# ---- workers that die ----------------------------------------------------------------------------


def test_a_study_goes_on_at_once_where_killed_workers_left_it(tmp_path, draws, fault):
    kills = fault(17, "two workers killed at a random moment, with their trials")
    rng, num_cut_off, num_rounds = random.Random(0), 0, draws(full=50, short=4)
    for number in range(num_rounds + 50):
        if number >= num_rounds and num_cut_off:
            break  # a moment between two trials cuts none off; a few more rounds then
        # The number of retries is not what is tried here.
        study = make_study(tmp_path, num_trials=NUM_TRIALS, max_retries=9)
        workers = [start(study), start(study)]
        while not load_attempts(study):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        for worker in workers:
            kill(worker)
        wait_for_the_dead(study)
        with kills.case(f"round {number}"):
            # The second worker may have given up what the first left, before it was killed too.
            states = [attempt.state for attempt in load_attempts(study)]
            num_cut_off += states.count("running")
            blocked_s = finish(study)
            assert blocked_s < LONGEST_BLOCK_S, f"blocked for {blocked_s:.1f} s"
            check_whole(study, num_lost=states.count("running") + states.count("lost"))
    assert num_cut_off, "no trial was cut off, so nothing was tried"


def zombie():
    """Return the identity of a worker that is dead and not yet waited for, and its process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        os._exit(0)
    identity = {**this_process(), "pid": pid, "pid_started": start_time(pid)}
    os.write(writing, b"x")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(reading)
    os.close(writing)
    return identity


def recover_at_once(study, num_workers=6):
    """Return how many attempts that many processes gave up, all at the same moment."""
    ready, given_up = FORK.Barrier(num_workers), FORK.Queue()

    def look():
        ready.wait()
        given_up.put(len(recover(study, this_process())))

    processes = [FORK.Process(target=look) for _ in range(num_workers)]
    for process in processes:
        process.start()
    total = sum(given_up.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    return total


def test_a_zombies_attempts_are_given_up_once_by_all_who_look(tmp_path, draws, fault):
    claims = fault(17, "the claim of a zombie, found by six workers at once")
    for number in range(draws(full=25, short=4)):
        study, dead = make_study(tmp_path, num_trials=NUM_TRIALS), zombie()
        take(study, 0, worker=dead)
        take(study, 1, worker=dead)
        take(study, 2, worker=this_process())  # lives
        with claims.case(f"round {number}"):
            assert is_alive(dead) is False
            assert recover_at_once(study) == 2
            assert [trial.state for trial in load_trials(study)] == ["lost", "lost", "running"]
        os.waitpid(dead["pid"], 0)


def test_without_the_exclusive_mark_an_attempt_is_given_up_more_than_once(
    tmp_path, monkeypatch, fault
):
    def careless(folder, by):
        if folder.abandoned_path.exists():
            return False
        time.sleep(0.05)
        folder.abandoned_path.write_text("{}")
        return True

    monkeypatch.setattr(recovery, "abandon", careless)
    study, dead = make_study(tmp_path), zombie()
    take(study, 0, worker=dead)
    assert recover_at_once(study) > 1
    os.waitpid(dead["pid"], 0)
    fault(24, "studies: the exclusive mark of a lost attempt").held("six at once")


# ---- journals that are torn ----------------------------------------------------------------------


def torn_at(tmp_path, size):
    """Return a study whose only journal was cut to `size` bytes, and the attempt's folder."""
    study = make_study(tmp_path, num_trials=1)
    folder = end(take(study, 0), *ENDING, value=0.875)
    os.truncate(folder.journal_path, size)
    return study, folder


def test_a_journal_torn_at_any_byte_opens_and_is_written_on(tmp_path, draws, fault):
    torn = fault(17, "a journal torn at each byte: the study opens and is written on")
    whole = torn_at(tmp_path, 1 << 20)[1].journal_path
    content = whole.read_bytes().rstrip(b"\0")
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for size in range(0, len(content) + 1, draws(full=1, short=23)):
        study, folder = torn_at(tmp_path, size)
        num_lines = sum(end <= size for end in ends)
        with torn.case(f"byte {size}"):
            (trial,) = load_trials(study)
            is_ended = num_lines == len(ends)
            assert trial.state == ("complete" if is_ended else "running")
            assert list(trial.reports) == list(range(1, min(num_lines, 4) + 1))
            end(folder, "failed", cause="error")
            (trial,) = load_trials(study)
            assert trial.state == ("complete" if is_ended else "failed")


def test_without_the_cut_of_a_torn_line_what_follows_is_lost(tmp_path, monkeypatch, fault):
    def keep_it(path):
        path.touch()
        return path.stat().st_size

    monkeypatch.setattr("ml_core.tracking.log_file._cut_torn_line", keep_it)
    study, folder = torn_at(tmp_path, 150)
    end(folder, "failed", cause="error")
    with pytest.raises(Exception, match="damaged"):
        load_trials(study)
    fault(24, "studies: the cut of a torn line").held("a journal cut at byte 150")


# ---- clocks that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("clocks", [(HOUR_S, -HOUR_S), (-HOUR_S, 0), (0, HOUR_S)])
def test_workers_whose_clocks_are_hours_apart_share_a_study(tmp_path, clocks, draws, fault):
    wrong = fault(17, f"two workers whose clocks are off by {clocks[0]} and {clocks[1]} s")
    for number in range(draws(full=10, short=1)):
        study = make_study(tmp_path, num_trials=NUM_TRIALS)
        elsewhere = {**this_process(), "host": "another"}
        alive = take(study, 0, worker=elsewhere)  # its heart beats, seen through files only
        workers = [start(study, clock_s=clock_s) for clock_s in clocks]
        time.sleep(0.2)
        end(alive, "complete", [0.5], value=0.5)
        for worker in workers:
            worker.join(60)
        with wrong.case(f"round {number}"):
            assert [worker.exitcode for worker in workers] == [0, 0]
            check_whole(study, num_lost=0)


def test_a_heart_that_is_silent_is_found_by_a_worker_whose_clock_is_wrong(
    tmp_path, monkeypatch, fault
):
    silent = fault(17, "a silent worker elsewhere, looked at with a clock an hour off")
    for clock_s in (-HOUR_S, HOUR_S):
        study = make_study(tmp_path)
        folder = take(study, 0, worker={**this_process(), "host": "another"})
        monkeypatch.setattr(time, "time", lambda clock_s=clock_s: real_time() + clock_s)
        with silent.case(f"{clock_s} s"):
            assert recover(study, this_process()) == []
            long_ago = real_time() - 1000
            os.utime(folder.heartbeat_path, (long_ago, long_ago))
            assert len(recover(study, this_process())) == 1
            assert recover(study, this_process()) == []


real_time = time.time


def test_by_the_workers_own_clock_a_living_attempt_would_be_given_up(tmp_path, monkeypatch, fault):
    def by_own_clock(_study, folder, _by):
        return time.time() - folder.heartbeat_path.stat().st_mtime

    monkeypatch.setattr(recovery, "heartbeat_age", by_own_clock)
    monkeypatch.setattr(time, "time", lambda: real_time() + HOUR_S)
    study = make_study(tmp_path)
    take(study, 0, worker={**this_process(), "host": "another"})
    assert len(recover(study, this_process())) == 1
    fault(24, "studies: the clock of the file system").held("an hour ahead")
