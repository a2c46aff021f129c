"""The files of a run as the report reads them: each is read, absent or damaged, and said to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ml_core.errors import RunError
from ml_core.findings import Finding
from ml_core.runs import RunDir

T = TypeVar("T")


@dataclass(frozen=True)
class FileFact:
    """One file of the run: its name, what it holds, and whether it was read, absent or damaged."""

    name: str
    holds: str
    state: str


@dataclass
class Reader:
    """Reads files of `run`, and keeps what became of each."""

    run: RunDir
    files: list[FileFact] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def read(self, path: Path, read: Callable[[Path], T], holds: str) -> T | None:
        """Return what `read` gives, or None; notes the state, and a finding if it is damaged."""
        name = path.relative_to(self.run.path).as_posix()
        state, content = "absent", None
        if path.is_file():
            try:
                content = read(path)
                state = "read"
            except (RunError, OSError, ValueError) as error:
                state = "damaged"
                message = f"{name} is damaged, so nothing is shown of it. {error}"
                self.findings.append(Finding(f"damaged-{name}", "error", message))
        self.files.append(FileFact(name, holds, state))
        return content
