"""Signals as a request: the step in progress is finished and saved, then training stops.

What saves nothing on its way is given up at once instead, to be done again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from ml_core.scheduler_signals import OF_A_SCHEDULER

SIGNALS = (signal.SIGINT, *OF_A_SCHEDULER)  # Ctrl-C, and those

logger = logging.getLogger("ml_core.train")


class StopRequest:
    """While inside, the first of SIGNALS sets `name`; a second Ctrl-C ends at once.

    The handler only sets a flag: saving inside a handler can meet the step half done. Outside the
    main thread Python forbids handlers, and nothing is installed.
    """

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> StopRequest:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in SIGNALS}
        else:
            self._old = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self.name = None  # so that the next training is not stopped by this request

    def __bool__(self) -> bool:
        return self.name is not None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # it reaches forked reader processes too; the main one ends them
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.name is None:
            self.name = signal.Signals(number).name
            logger.info("%s: finishing the step, then saving.", self.name)


class StoppedError(BaseException):
    """A scheduler asked to stop, and what was under way is given up; its text names the signal.

    No Exception, so that nothing takes it for a failure of its own and goes on.
    """


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """While inside, the first signal of a scheduler raises StoppedError wherever this process is.

    Later ones are ignored until the body has ended. For work whose files are written aside and
    renamed, so that it can be left anywhere. Outside the main thread nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:
            return  # a forked reader, which the main process ends
        for each in OF_A_SCHEDULER:
            signal.signal(each, signal.SIG_IGN)
        raise StoppedError(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in OF_A_SCHEDULER}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
