"""What an attempt writes about itself: an append-only journal with one writer."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from ml_core.runs import utc_now
from ml_core.search.study_dir import AttemptDir
from ml_core.tracking.log_file import LogFile


class AbandonedError(Exception):
    """Another worker gave this attempt up while its process slept; nothing it writes counts."""


class Journal:
    """Appends the events of an attempt; each survives a power cut once it is written.

    Every method raises AbandonedError when the attempt was given up, and OSError, leaving the lines
    before it whole, when the disk is full.
    """

    def __init__(self, folder: AttemptDir) -> None:
        self._folder = folder
        self._refuse_if_abandoned()
        self._log = LogFile(folder.journal_path)

    def start(self, process: dict[str, Any]) -> None:
        """Note which process trains."""
        self._append({"event": "start", **process})

    def report(self, epoch: int, value: float, *, num_rungs: int, stop: bool) -> None:
        """Note the metric after an epoch, how many rungs that ends, and the pruner's word."""
        event = {"event": "report", "epoch": epoch, "value": value}
        self._append({**event, "rungs": num_rungs, "stop": stop})

    def end(
        self,
        state: str,
        *,
        value: float | None = None,
        cause: str = "",
        error: str = "",
        seconds: float | None = None,
    ) -> None:
        """Note how it ended: complete, pruned, failed or interrupted."""
        value = None if value is None or math.isnan(value) else value
        event = {"event": "end", "state": state, "value": value, "cause": cause, "error": error}
        self._append({**event, "seconds": seconds})

    def _append(self, event: dict[str, Any]) -> None:
        self._refuse_if_abandoned()
        self._log.append({**event, "time": utc_now()})
        self._log.sync()

    def _refuse_if_abandoned(self) -> None:
        if self._folder.abandoned_path.exists():
            raise AbandonedError(
                f"{self._folder.path} was given up by another worker, which took it for dead."
            )

    def close(self) -> None:
        self._log.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
