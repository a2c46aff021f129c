"""The most memory that this process and its readers held at once while something ran."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType

_LOOK_S = 0.1
_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty): +(\d+) kB", re.MULTILINE)  # proc(5), smaps_rollup
_RESIDENT = re.compile(r"^Rss: +(\d+) kB", re.MULTILINE)


class PeakMemory:
    """While inside, looks ten times a second; `mib` is the highest sum so far.

    Counted is what this process has in memory, and what its child processes have besides, since
    most of theirs is shared with it. Without Linux's /proc, this process alone.
    """

    def __init__(self) -> None:
        self._peak_kb = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def mib(self) -> float:
        """The peak in MiB; of this process never less than the system noted."""
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
        return max(self._peak_kb, own / 1024 if sys.platform == "darwin" else own) / 1024

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            children = multiprocessing.active_children()
            now_kb = sum(_kb(child.pid, _PRIVATE) for child in children)
            self._peak_kb = max(self._peak_kb, _kb("self", _RESIDENT) + now_kb)


def _kb(process: int | str | None, pattern: re.Pattern[str]) -> int:
    """Return the sum of the lines of `pattern` about `process`; 0 where it is gone."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return sum(int(number) for number in pattern.findall(text))
