"""Signals as a request: the step in progress is finished and saved, then training stops."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType, TracebackType

# Ctrl-C; a scheduler's end or preemption; what sites send ahead of a time limit, USR1 or USR2.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

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
