"""What a check has found so far, on disk after every figure: who is killed keeps what it knew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Answer:
    """The file that gpu.py reads: {"status", "line", "figures"}."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status, self._line = "failed", "it has no answer yet"
        self.figures: dict[str, Any] = {}

    def note(self, **figures: Any) -> None:
        """Add figures, by name; JSON must be able to hold them."""
        self.figures |= figures
        self._write()

    def settle(self, status: str, line: str) -> None:
        """Say how it ended: passed, failed, measured or left out; and in one line what was found.

        It may be said again while more is found.
        """
        self._status, self._line = status, line
        self._write()

    def judge(self, holds: bool, line: str) -> None:
        """Settle it as passed or failed."""
        self.settle("passed" if holds else "failed", line)

    def _write(self) -> None:
        aside = self._path.with_suffix(".part")
        content = {"status": self._status, "line": self._line, "figures": self.figures}
        aside.write_text(json.dumps(content), encoding="utf-8")
        os.replace(aside, self._path)
