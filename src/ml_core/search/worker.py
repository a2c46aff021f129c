"""A worker: takes slot after slot of a study and runs each in a process of its own.

    recover what dead workers left -> take a slot, one to be tried again first -> run it
    -> note how it ended, where its process could not -> the next, until every slot is finished

The worker itself computes nothing, so a trial's process is forked from it in milliseconds with
everything imported, and whatever a trial does to its process ends with it.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.runs import utc_now
from ml_core.search.claim import claim
from ml_core.search.journal import AbandonedError, Journal
from ml_core.search.process import this_process
from ml_core.search.recovery import recover
from ml_core.search.sampler import propose
from ml_core.search.space import Space
from ml_core.search.study_dir import AttemptDir, StudyDir, StudyRecord
from ml_core.search.trials import ERROR, KILLED, Trial, load_attempt, load_trials

logger = logging.getLogger("ml_core.tune")

# How a trial's process says what it could not write into its journal.
EXIT_STOPPED = 130  # asked to stop, saved, and ready to go on
EXIT_CANNOT_WRITE = 74  # EX_IOERR
EXIT_BLOCKED = 75  # EX_TEMPFAIL: the study could not be read, which the worker will see itself

_POLL_S = 0.5
_IDLE_S = 1.0  # between two looks whether a slot of another worker is to be tried again


@dataclass(frozen=True)
class Calls:
    """What a worker asks of its surroundings.

    `run_trial` does a trial, in the trial's process, which it ends by an exit code. `check` is
    called before each trial and raises to end the worker. `should_stop` is asked every second.
    """

    run_trial: Callable[[AttemptDir], None]
    check: Callable[[], None]
    should_stop: Callable[[], bool]


def work(study: StudyDir, calls: Calls) -> None:
    """Run trials until every slot of `study` is finished, or until asked to stop.

    A slot that another worker runs is waited for, since that worker may die. Raises RunError when
    the study is damaged or nothing can be written, and what `calls.check` raises.
    """
    me, own = this_process(), os.getpid()
    while not calls.should_stop():
        try:
            for lost in recover(study, me):
                logger.warning(
                    "trial %d: its worker (pid %s on %s) is gone",
                    lost.number, lost.worker.get("pid"), lost.worker.get("host"),
                )  # fmt: skip
            trials = load_trials(study)
            if is_finished(study, trials):
                return
            calls.check()
            folder = _take(study, trials, me)
            if folder is None:
                time.sleep(_IDLE_S)
                continue
            _run(folder, calls)
        except OSError as error:
            raise cannot_write(study.path, error) from error
        assert os.getpid() == own, "a trial's process never comes back here"


def is_finished(study: StudyDir, trials: list[Trial]) -> bool:
    """Whether every slot has ended for good."""
    num_finished = sum(trial.is_finished for trial in trials)
    return num_finished == StudyRecord.load(study).num_trials


def _take(study: StudyDir, trials: list[Trial], me: dict[str, Any]) -> AttemptDir | None:
    """Claim a slot to be tried again, or else the next; None when all are taken."""
    record, space = StudyRecord.load(study), None
    for trial in trials:
        if trial.state == "lost":
            folder = claim(
                study, trial.number, trial.attempt + 1, trial.params, worker=me, now=utc_now()
            )
            if folder is not None:
                return folder
    taken = {trial.number for trial in trials}
    for number in range(record.num_trials):
        if number in taken:
            continue
        space = space or Space.from_dict(record.space)
        params = propose(record.sampler, space, trials, number, record.direction)
        folder = claim(study, number, 0, params, worker=me, now=utc_now())
        if folder is not None:
            return folder
        trials = load_trials(study)  # another took it: the next is proposed in its knowledge
    return None


def _run(folder: AttemptDir, calls: Calls) -> None:
    """Run the trial in its own process and see that its end is noted."""
    started = time.monotonic()
    context = multiprocessing.get_context("fork")  # of this process, which has a single thread
    process = context.Process(target=_child, args=(calls, folder), name=folder.name)
    # A SIGTERM that comes meanwhile waits until the child has a handler of its own.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    code = _wait(process, calls.should_stop)
    process.close()
    note_end(folder, code, calls.should_stop(), time.monotonic() - started)
    if code == EXIT_CANNOT_WRITE:
        raise OSError(f"trial {folder.name} could not write its files (is the disk full?)")


def _child(calls: Calls, folder: AttemptDir) -> None:
    """Run a trial as a process that a SIGTERM ends, until the trial itself listens to it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    calls.run_trial(folder)


def _wait(process: BaseProcess, should_stop: Callable[[], bool]) -> int:
    """Return the exit code of the trial's process, which is told to stop when this one is."""
    is_told = False
    while process.exitcode is None:
        if should_stop() and not is_told:
            process.terminate()
            is_told = True
        wait([process.sentinel], _POLL_S)
    return process.exitcode


def note_end(folder: AttemptDir, code: int, was_asked: bool, seconds: float) -> None:
    """Write the end of an attempt whose process could not: it was killed, or asked to stop."""
    if load_attempt(folder).state != "running":
        return
    if was_asked or code in (EXIT_CANNOT_WRITE, EXIT_BLOCKED):
        state, cause, error = "interrupted", "", "stopped before its end"
    elif code < 0 or code == EXIT_STOPPED:
        number = signal.SIGTERM if code == EXIT_STOPPED else -code
        state, cause = "failed", f"{KILLED} by signal {number:d}"
        cause += " (out of memory?)" if number == signal.SIGKILL else ""
        error = f"its process was {cause}; see trials/{folder.name}/{folder.output_path.name}"
    else:
        state, cause = "failed", ERROR
        error = f"its process ended with {code}; see trials/{folder.name}/{folder.output_path.name}"
    with contextlib.suppress(AbandonedError), Journal(folder) as journal:
        journal.end(state, cause=cause, error=error, seconds=seconds)


def cannot_write(folder: Path, error: OSError) -> RunError:
    """Return what to tell a user whose disk refuses what a study writes."""
    return RunError(
        f"{folder} cannot be written: {error.strerror or error}. Free space, or mend its rights; "
        f"then go on with: ml-core tune --resume {folder}"
    )
