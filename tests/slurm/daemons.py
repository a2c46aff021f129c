"""Processes that tests start for a while: begun in the foreground, ended with all they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path


class Daemon:
    """A process group of its own; it dies with the process that started it, however that ends."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and its group as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def processes_with(variable: str, among: Iterable[int] | None = None) -> list[int]:
    """Return the pids that have `variable` (NAME=text) in the environment they began with."""
    if among is None:
        among = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    found = []
    for pid in among:
        with suppress(OSError):  # it has just ended, or is another user's
            if variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def kill_all(pids: Callable[[], list[int]]) -> None:
    """Kill what `pids` gives until it gives nothing: a process can start another meanwhile."""

    def none_is_left() -> bool:
        left = pids()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_is_left, "all processes are gone")


def wait_until(holds: Callable[[], bool], what: str, *, timeout_s: float = 10) -> None:
    """Return once `holds` does; raises TimeoutError with `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s} s in vain until {what}")
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; another process may still take one before they do."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def has_port(port: int) -> bool:
    """Return whether somebody listens on the port of 127.0.0.1."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
