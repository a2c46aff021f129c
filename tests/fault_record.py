"""The count behind a row of the fault matrix: what was tried, what held, and where it is kept."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

LONGEST_WHY = 600  # characters of a lost case that are shown


@dataclass
class Fault:
    """One fault of the matrix under test: every try is named and either held or lost.

    `row` is its number in the matrix (docs/reliability.md), `what` says in a few words what is
    broken here; a row may have several tests, each with a `what` of its own.
    """

    row: int
    what: str
    held_cases: list[str] = field(default_factory=list)
    lost_cases: list[str] = field(default_factory=list)

    def held(self, case: str) -> None:
        """Count a try after which everything was as it must be."""
        self.held_cases.append(case)

    def lost(self, case: str, why: str) -> None:
        """Count a try after which something was wrong; the test goes on and fails at its end."""
        self.lost_cases.append(f"{case}: {why}")

    @contextmanager
    def case(self, case: str) -> Iterator[None]:
        """Count the block as held, or as lost where an assert or `pytest.raises` fails; go on."""
        try:
            yield
        except (AssertionError, pytest.fail.Exception) as error:
            why = str(error).partition("\nassert ")[0]  # what pytest adds is of no use here
            self.lost(case, why[:LONGEST_WHY] or "an assert failed")
        else:
            self.held(case)

    @property
    def num_tried(self) -> int:
        return len(self.held_cases) + len(self.lost_cases)

    def check(self) -> None:
        """Fail with every case that was lost; a fault that was never tried has not held either."""
        assert self.num_tried, f"row {self.row}, {self.what}: nothing was tried"
        lost = f"lost {len(self.lost_cases)} of {self.num_tried}"
        told = "\n  ".join(self.lost_cases[:20])
        assert not self.lost_cases, f"row {self.row}, {self.what}: {lost}\n  {told}"


@dataclass(frozen=True)
class FaultLine:
    """One line of the record: `draw` is full or short, `date` in UTC, `commit` has `+` if dirty."""

    row: int
    what: str
    tried: int
    held: int
    seconds: float
    draw: str
    date: str
    commit: str


def line_of(fault: Fault, seconds: float, draw: str, root: Path) -> FaultLine:
    """Return what the record keeps of `fault`, stamped with the commit checked out at `root`."""
    return FaultLine(
        row=fault.row,
        what=fault.what,
        tried=fault.num_tried,
        held=len(fault.held_cases),
        seconds=round(seconds, 1),
        draw=draw,
        date=datetime.now(UTC).date().isoformat(),
        commit=commit_of(root),
    )


def commit_of(root: Path) -> str:
    """Return the short commit at `root`, with `+` where tracked files differ from it."""
    head = _git(root, "rev-parse", "--short=10", "HEAD")
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ":!docs")
    return f"{head or 'unknown'}{'+' if dirty else ''}"


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def add_line(path: Path, line: FaultLine) -> None:
    """Put `line` into the JSON list at `path`, in place of an older one of the same row and `what`.

    The tests of several processes share the file, so its folder is locked meanwhile.
    """
    path = path.resolve()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lines = json.loads(path.read_text()) if path.is_file() else []
        others = [one for one in lines if (one["row"], one["what"]) != (line.row, line.what)]
        lines = sorted([*others, asdict(line)], key=lambda one: (one["row"], one["what"]))
        aside = path.with_name(f".{path.name}.part")
        aside.write_text(json.dumps(lines, indent=1) + "\n")
        aside.replace(path)
    finally:
        os.close(folder)
