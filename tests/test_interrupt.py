"""Ctrl-C and the signals of a scheduler as a request to stop."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ml_core.runs import RunDir, RunRecord
from ml_core.scheduler_signals import OF_A_SCHEDULER
from ml_core.solver.interrupt import SIGNALS, StopRequest

NAMES = ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"]


@pytest.mark.parametrize("number", [signal.Signals[name] for name in NAMES])
def test_the_first_signal_is_noted_and_nothing_is_interrupted(number):
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop and stop.name == number.name


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler repeats itself; a person means it
        assert stop.name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_come_back_whatever_happens():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ValueError, match="x"), StopRequest():
        raise ValueError("x")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_warning_ahead_of_a_time_limit_and_the_end_itself_are_one_request():
    with StopRequest() as stop:
        for number in (signal.SIGUSR1, signal.SIGCONT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.name == "SIGUSR1"


def test_the_next_training_is_not_stopped_by_the_request_of_the_last():
    stop = StopRequest()
    with stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop
    with stop:
        assert not stop


def test_a_forked_reader_process_leaves_the_signal_to_the_main_one():
    with StopRequest() as stop:
        child = os.fork()
        if child == 0:
            try:
                for number in (*SIGNALS, signal.SIGINT):  # to all processes of a job
                    os.kill(os.getpid(), number)
            finally:
                os._exit(7 if stop.name is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def train() -> None:
        with StopRequest() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_the_syncer_outlives_what_slurm_sends_to_every_process(tmp_path):
    """Training goes on to save and to log, and the syncer is to send that as well."""
    run = RunDir.create(tmp_path, "run")
    RunRecord(experiment_name="tiny", seed=1, command="a test").save(run)
    command = [sys.executable, "-m", "ml_core.tracking.mlflow_sync", "--follow"]
    syncer = subprocess.Popen([*command, f"--run={run.path}", "--uri=http://127.0.0.1:9"])
    try:
        deadline = time.monotonic() + 60
        while not (ignored := ignored_by(syncer.pid)) & set(OF_A_SCHEDULER):
            assert syncer.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.05)  # all are ignored at once, but not in one instruction
        ignored = ignored_by(syncer.pid)
    finally:
        syncer.kill()
        syncer.wait()
    assert ignored >= set(OF_A_SCHEDULER)


def ignored_by(pid):
    """Return the signals that a process ignores: SigIgn of proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if "SigIgn" in line), 16)
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


def test_a_signal_that_comes_while_a_finished_command_leaves_does_not_change_its_exit_code():
    """On a busy node a job that had trained to its end was told of its limit, and was lost."""
    program = (
        "import atexit, os, sys\n"
        "from ml_core.cli import main\n"
        f"signals = {[int(number) for number in OF_A_SCHEDULER]}\n"
        "atexit.register(lambda: [os.kill(os.getpid(), number) for number in signals])\n"
        "sys.argv = ['ml-core', '--version']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("ml-core "), (done, done.stderr)
