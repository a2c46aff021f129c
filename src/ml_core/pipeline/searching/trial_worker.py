"""One worker process of `tune`: what it is told, where it computes, how it refuses."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ml_core.errors import MLCoreError
from ml_core.log import setup_cli_logging
from ml_core.pipeline.searching.study_data import DataStamps
from ml_core.pipeline.searching.trial import run_trial
from ml_core.search.crew import EXIT_REFUSED
from ml_core.search.study_dir import StudyDir
from ml_core.search.worker import EXIT_STOPPED, Calls, work
from ml_core.solver.interrupt import StopRequest


def run_worker(
    study_path: str, command: str, stamps: str, devices: str, place: int, messages: Connection
) -> None:
    """Work on the study until it is finished or this process is asked to stop.

    `stamps`: what the data files are, as `DataStamps`, and `devices`: the GPUs to choose from, both
    as JSON. An error that the user can mend is sent through `messages`; the exit code is then
    EXIT_REFUSED.
    """
    setup_cli_logging()
    logging.getLogger("ml_core.train").setLevel(logging.WARNING)  # its trials have their own logs
    _choose_gpu(json.loads(devices), place)
    check = DataStamps.from_json(json.loads(stamps)).check
    with StopRequest() as stop:
        calls = Calls(
            run_trial=partial(run_trial, command=command),
            check=check,
            should_stop=lambda: bool(stop) or _is_orphan(),
        )
        try:
            work(StudyDir.open(Path(study_path)), calls)
        except MLCoreError as error:
            messages.send_bytes(str(error).encode())
            sys.exit(EXIT_REFUSED)
        except KeyboardInterrupt:  # a second Ctrl-C; the trial has been told
            sys.exit(EXIT_STOPPED)


def _choose_gpu(devices: list[str], place: int) -> None:
    """Show the worker at `place` one GPU of several; with one or none there is no choice."""
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]


def _is_orphan() -> bool:
    """Whether the process that started this one is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and bool(wait([parent.sentinel], 0))
