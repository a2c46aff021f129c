"""A call in a process of its own, forked from a warm one, with strace beside it to break it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import call_when_told, context

ON_FILES = "trace=%file,%desc"
WAITS_IN = "read"  # where the child is when strace comes: how many there are is not certain

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace breaks the system calls here: apt install strace"
)


def run_traced(call: Callable[..., None], arguments: Sequence[Any], *options: str) -> int:
    """Call in a child under `strace OPTIONS`; return its exit code: -9 if it was killed.

    forked.FAILED where it raised an error of ours. What strace sees goes to the file after `-o`.
    """
    spawn = context()
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=call_when_told, args=(theirs, call, *arguments))
    child.start()
    ours.recv_bytes()  # it has imported what it needs: none of that is to be broken
    strace = ["strace", "-q", "-p", str(child.pid), *options]
    tracer = subprocess.Popen(strace, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until(lambda: _is_traced(child.pid) or tracer.poll() is not None, "strace attaches")
        if tracer.poll() is not None:
            _give_up(tracer)
        ours.send_bytes(b"go")
        child.join(60)
        assert not child.is_alive(), f"the child hangs under strace {options}"
    finally:
        child.kill()
        child.join()
        tracer.communicate(timeout=30)
    return int(child.exitcode)


def _give_up(tracer: subprocess.Popen[str]) -> None:
    said = tracer.communicate()[1]
    if "not permitted" in said:
        pytest.skip(f"this machine lets nobody trace another process: {said}")
    raise AssertionError(f"strace ended: {said}")


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def _wait_until(look: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.002)


@dataclass(frozen=True)
class Place:
    """The `number`-th call of `name` (from 1) that a traced child makes."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} {self.number}"

    def inject(self, what: str) -> str:
        return f"inject={self.name}:{what}:when={self.number}"


def places_of(
    call: Callable[..., None], arguments: Sequence[Any], folder: Path, log: Path
) -> list[Place]:
    """Return every place in an undisturbed call that concerns a file in `folder`, in order."""
    assert run_traced(call, arguments, "-y", "-e", ON_FILES, "-o", str(log)) == 0
    places, counted = [], Counter[str]()
    for line in log.read_text().splitlines():
        name = re.match(r"(\w+)\(", line)  # not of the lines about signals and the exit
        if name is not None:
            counted[name[1]] += 1
            if str(folder) in line and name[1] != WAITS_IN:
                places.append(Place(name[1], counted[name[1]]))
    return places


def spread(places: Sequence[Place], number: int) -> Iterator[Place]:
    """Yield `number` of the places, evenly over the call; all where there are fewer."""
    number = min(number, len(places))
    for each in range(number):
        yield places[each * len(places) // number]


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """Mount an empty disk of `size` on `folder`; skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a real full disk needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
