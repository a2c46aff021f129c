"""What a reader process does besides reading: it serves one trainer, and ends with it.

A terminal and a scheduler signal every process of a job. To the trainer that is a request to finish
the step and save, for which it still needs its readers; so none of them heeds it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

# Whoever may ask for an end, the trainer too, asks by SIGTERM: a reader has to see who did.
_SEES_SENDERS = hasattr(signal, "sigtimedwait")  # not on macOS
_REQUESTS = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_HELD_BACK = {*_REQUESTS, signal.SIGTERM} if _SEES_SENDERS else {*_REQUESTS}
_LOOK_EVERY_S = 1.0


@contextmanager
def readers_born_deaf(start_method: str) -> Iterator[None]:
    """Hold requests back from processes that start meanwhile; this one gets its own afterwards.

    Without it a signal ends a reader that is still importing, and the processes that Python starts
    besides: a server of forks, whose readers would end with it, and a tracker of semaphores.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        if start_method != "fork":
            resource_tracker.ensure_running()  # lets signals in again: not between the next lines
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_trainer(_worker: int) -> None:
    """Leave requests to the trainer, and end when it ends or says so; a `worker_init_fn`."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None, "for a process that multiprocessing started"
    for number in _REQUESTS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    threading.Thread(target=_end_with, args=(trainer,), name="trainer watch", daemon=True).start()


def _end_with(trainer: BaseProcess) -> None:
    """End this process once `trainer` is gone or tells it to, whatever it is reading then.

    Of a server of forks every reader holds one end of what shows it that the trainer lives, so that
    torch, which asks for the parent, sees it live for ever. And a reader started by a fork holds
    what would show the end of the trainer to those before it, but sees its parent change.
    """
    parent = os.getppid()
    while trainer.is_alive() and os.getppid() == parent:
        if _SEES_SENDERS:
            told = signal.sigtimedwait({signal.SIGTERM}, _LOOK_EVERY_S)
            if told is not None and told.si_pid == trainer.pid:
                break
        else:
            time.sleep(_LOOK_EVERY_S)
    os._exit(0)
