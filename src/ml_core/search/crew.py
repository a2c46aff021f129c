"""The worker processes of one command: started, watched, replaced when they die, stopped."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ml_core.scheduler_signals import OF_A_SCHEDULER

logger = logging.getLogger("ml_core.tune")

EXIT_REFUSED = 2  # a worker that ends by an error the user can mend would end so again


@dataclass
class _Member:
    process: BaseProcess
    messages: Connection  # what it says before it refuses


class Crew:
    """`size` processes of `target(*arguments, place, connection)`; `place` is 0 to size - 1.

    A process that dies is replaced, at most `max_replaced` times in all. One that ends with
    EXIT_REFUSED has sent why; it is not replaced, and `refusals` has it. They are forked from the
    server of `start_server`, which is called first.
    """

    def __init__(
        self,
        target: Callable[..., None],
        arguments: Sequence[str],
        *,
        size: int,
        max_replaced: int,
    ) -> None:
        self.refusals: list[str] = []
        self.num_dead = 0
        self._target, self._arguments = target, tuple(arguments)
        self._max_replaced = max_replaced
        self._context = multiprocessing.get_context("forkserver")
        self._members = {place: self._start(place) for place in range(size)}

    @property
    def is_at_work(self) -> bool:
        return bool(self._members)

    def wait(self, timeout_s: float) -> None:
        """Return when a process has ended, or after `timeout_s`; replace those that died."""
        wait([member.process.sentinel for member in self._members.values()], timeout_s)
        for place, member in list(self._members.items()):
            code = member.process.exitcode
            if code is None:
                continue
            pid = member.process.pid
            if code == EXIT_REFUSED and member.messages.poll():
                self.refusals.append(member.messages.recv_bytes().decode())
            member.messages.close()
            member.process.close()
            del self._members[place]
            if code in (0, EXIT_REFUSED):
                continue
            self.num_dead += 1
            how = f"killed by signal {-code}" if code < 0 else f"ended with {code}"
            if self.num_dead > self._max_replaced:
                logger.warning("worker %d (pid %d) was %s; not replaced again", place, pid, how)
            else:
                logger.warning(
                    "worker %d (pid %d) was %s; another takes its place", place, pid, how
                )
                self._members[place] = self._start(place)

    def stop(self) -> None:
        """Ask every worker to stop: each lets its trial save and then ends."""
        self._max_replaced = 0
        for member in self._members.values():
            member.process.terminate()

    def _start(self, place: int) -> _Member:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=self._target, args=(*self._arguments, place, theirs), name=f"worker-{place}"
        )
        process.start()
        theirs.close()
        return _Member(process, ours)


def start_server(preload: Sequence[str]) -> None:
    """Start the process that workers are forked from, which imports `preload` once; call it early.

    It keeps ignoring what Slurm sends to every process of a job ahead of its end: were it to die,
    the workers could not be waited for while they save. Does nothing where it runs already.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in OF_A_SCHEDULER}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
