"""The syncer as a child of training: started beside it, waited for at its end, never in its way.

MLflow is not imported here: only the child pays for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ml_core.runs import RunDir
from ml_core.tracking.sync_state import SyncState


@dataclass(frozen=True)
class SyncHandle:
    """A syncer started by `start_sync`; `process` is None when it could not be started."""

    run: RunDir
    uri: str
    process: subprocess.Popen[bytes] | None
    error: str | None = None


@dataclass(frozen=True)
class SyncOutcome:
    """Whether MLflow has the whole run, and the line to tell the user."""

    complete: bool
    message: str


def start_sync(run: RunDir, tracking_uri: str) -> SyncHandle:
    """Start a process that sends `run` to MLflow while it is written; never raises.

    It writes sync.json, and sync.log where something went wrong. It ends by itself when run.json
    has a final status or this process is gone; so a run that is resumed must say `running` before,
    and a run that has ended is sent once.
    """
    # -P: a file of the user's in the working directory must not shadow a module.
    command = [sys.executable, "-P", "-m", "ml_core.tracking.mlflow_sync", "--follow"]
    command += ["--run", str(run.path.absolute()), "--parent", str(os.getpid())]
    try:
        state = SyncState.load(run.path, tracking_uri)
        state.complete, state.error = False, None
        state.save(run.path)
        with open(run.sync_log_path, "ab") as log:
            process = subprocess.Popen(
                command,
                # In the environment, since every user of a machine can read a command line.
                env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for training only
            )
    except OSError as error:
        return SyncHandle(run, tracking_uri, None, f"the syncer could not be started: {error}")
    return SyncHandle(run, tracking_uri, process)


def finish_sync(handle: SyncHandle, timeout_s: float = 10.0) -> SyncOutcome:
    """Wait for the syncer, at most `timeout_s`, and say whether everything was sent; never raises.

    Call it after run.json got its final status, which is what the syncer waits for.
    """
    run, problem = handle.run, handle.error
    if handle.process is not None:
        try:
            handle.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            # Killing loses nothing: what was not confirmed is found missing by the next sync.
            handle.process.kill()
            handle.process.wait()
            problem = f"the syncer was not done after {timeout_s:g} s"
    state = SyncState.load(run.path, handle.uri)
    if state.complete:
        return SyncOutcome(True, f"MLflow has the whole run: {state.url or state.uri}")
    if state.error is None:
        problem = problem or f"the syncer failed, see {run.sync_log_path}"
        state.error = f"{problem}. To complete the record: ml-core track sync {run.path}"
    return SyncOutcome(False, f"Not in MLflow yet: {_what_is_missing(run, state)}. {state.error}")


def _what_is_missing(run: RunDir, state: SyncState) -> str:
    missing = []
    for noun, path in {"epochs": run.metrics_log_path, "steps": run.steps_log_path}.items():
        num_lines = _count_lines(path)
        num_missing = num_lines - state.lines.get(path.name, 0)
        if num_missing > 0:
            missing.append(f"{num_missing} of {num_lines} {noun}")
    return ", ".join(missing) or "the status or some files"


def _count_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
