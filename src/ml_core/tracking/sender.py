"""Sending a study or a champion to MLflow from a process of its own: never in anyone's way.

MLflow is not imported here: only the child pays for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ml_core.tracking.sync_process import SyncOutcome


@dataclass(frozen=True)
class SendHandle:
    """A sender started by `start_sending`; `process` is None when it could not be started."""

    path: Path
    process: subprocess.Popen[bytes] | None
    output: IO[bytes] | None = None
    error: str = ""


def sync_champion(champion_path: Path, tracking_uri: str, timeout_s: float = 60.0) -> SyncOutcome:
    """Put a champion into the model registry; never raises, and takes at most `timeout_s`.

    When it did not work, the outcome's message says why and how to repeat it.
    """
    return finish_sending(start_sending(champion_path, tracking_uri), timeout_s)


def start_sending(path: Path, tracking_uri: str) -> SendHandle:
    """Start `ml-core track sync PATH` of a study or champion.json; never raises.

    It ends by itself when everything there now is sent. Call it when a search begins and its
    trials appear under their study from the first on.
    """
    path = path.absolute()
    # -P: a file of the user's in the working directory must not shadow a module.
    command = [sys.executable, "-P", "-m", "ml_core.pipeline.track_sync", str(path)]
    try:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the handle
        process = subprocess.Popen(
            command,
            # In the environment, since every user of a machine can read a command line.
            env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal is for the search only
        )
    except OSError as error:
        return SendHandle(path, None, error=f"the sender could not be started: {error}")
    return SendHandle(path, process, output)


def finish_sending(handle: SendHandle, timeout_s: float) -> SyncOutcome:
    """Wait for a sender, at most `timeout_s`, and say whether everything was sent; never raises."""
    problem = handle.error
    if handle.process is not None and handle.output is not None:
        with handle.output as output:
            try:
                if handle.process.wait(timeout_s) == 0:
                    return SyncOutcome(True, f"MLflow has {handle.path}")
                output.seek(0)
                problem = _last_line(output.read())
            except subprocess.TimeoutExpired:
                # Killing loses nothing: what was not confirmed is found missing by the next sync.
                handle.process.kill()
                handle.process.wait()
                problem = f"the sender was not done after {timeout_s:g} s"
    repeat = f"ml-core track sync {handle.path}"
    if repeat not in problem:
        problem = f"{problem.rstrip('.')}. To send it: {repeat}"
    return SyncOutcome(False, f"Not in MLflow yet: {problem}")


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the sender failed and did not say why"
