"""MLflow's pages, served to this machine only, by a process that ends when told."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ml_core.errors import TrackingError

HOST = "127.0.0.1"  # never another: MLflow's pages ask nobody for a password
DEFAULT_PORT = 5000  # MLflow's own
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class UiServer:
    """A server that answers at `url`; `start_s` is how long it took to."""

    url: str
    process: subprocess.Popen[bytes]
    start_s: float


@contextmanager
def serving(uri: str, artifacts_dir: Path, port: int) -> Iterator[UiServer]:
    """Serve the database file `uri` at `port` until the block is left; nothing remains running.

    Raises TrackingError quoting the server when it does not start.
    """
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = _start(uri, artifacts_dir, port, log)
        try:
            url = f"http://{HOST}:{port}"
            _wait_until_healthy(url, process, log)
            yield UiServer(url, process, time.monotonic() - started)
        finally:
            _stop(process)


def choose_port(port: int | None) -> int:
    """Return `port`, or MLflow's own if it is free, or any free one.

    Raises TrackingError when `port` is given and another program has it.
    """
    for candidate in (port or DEFAULT_PORT, 0):
        try:
            with socket.socket() as probe:
                # as the server will: without it a port is refused for a minute after its last use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, candidate))
                return int(probe.getsockname()[1])
        except (OSError, OverflowError) as error:
            if port is not None:
                reason = getattr(error, "strerror", None) or str(error)
                raise TrackingError(
                    f"port {port} cannot be used: {reason}. Give another, or leave --port away: "
                    "then a free one is taken."
                ) from error
    raise TrackingError(f"no port of {HOST} is free.")


def _start(uri: str, artifacts_dir: Path, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "mlflow", "server"]
    command += ["--backend-store-uri", uri, "--registry-store-uri", uri]
    command += ["--default-artifact-root", artifacts_dir.as_uri(), "--no-serve-artifacts"]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    return subprocess.Popen(
        command,
        env={
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            # for judging language models, by four more processes
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for us: we end it, with its children
        preexec_fn=_die_with_parent if _libc else None,
    )


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is killed without a chance to."""
    assert _libc is not None
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()[-10:]
            said = "\n".join(lines) or "nothing"
            raise TrackingError(f"MLflow's server did not start. It said:\n{said}")
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its children: asked first, killed after STOP_TIMEOUT_S or a 2nd Ctrl-C."""
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        with suppress(ProcessLookupError):  # the usual case: nobody is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
