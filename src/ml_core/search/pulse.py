"""The sign of life of a trial's process, which does not outlive its worker."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

_TOUCH_S = 5.0
_LOOK_S = 0.5
_GRACE_S = 10.0  # to finish a step and save


class Pulse:
    """While inside, a thread touches `heartbeat`, and ends this process when its parent is gone.

    First by SIGTERM, at which training saves and stops, then at once.
    """

    def __init__(self, heartbeat: Path) -> None:
        self._heartbeat = heartbeat
        self._parent = os.getppid()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        touched = -_TOUCH_S
        while not self._over.wait(_LOOK_S):
            if os.getppid() != self._parent:
                os.kill(os.getpid(), signal.SIGTERM)
                if not self._over.wait(_GRACE_S):
                    os._exit(1)
                return
            if time.monotonic() - touched >= _TOUCH_S:
                with contextlib.suppress(OSError):  # a full disk is the trial's to find
                    os.utime(self._heartbeat)
                touched = time.monotonic()
