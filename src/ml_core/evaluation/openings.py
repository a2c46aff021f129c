"""How often a test set was opened, by whom and for which champion.

Each opening is a line in the ledger `test_openings-<first 12 of the patches' SHA-256>.jsonl`, which
lies with the data, or in the output folder where the data's cannot be written. It is written before
the first test patch is read, so that an opening that crashed counts; a second line says how it
ended. A run keeps copies of its own lines, so that the loss of a ledger's end is noticed.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.evaluation.ledger import TORN, Line, append_line, read_ledger
from ml_core.findings import Finding

logger = logging.getLogger("ml_core.evaluate")

OPENED, ENDED = "opened", "ended"

# A folder of which the system says this is somebody else's, or knows no locks: another one is used.
# A full disk is not among them: it can be mended, and a ledger in two places is harder to read.
_NOT_OURS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
)


@dataclass(frozen=True)
class Opening:
    """One opening; `outcome` is "scored", "failed", "interrupted", or "" where nobody said."""

    id: str
    time: str  # ISO 8601, UTC
    who: str
    command: str
    champion: str | None  # SHA-256 of champion.json's content; None where there was none
    sealed: bool  # False for an opening without a champion
    run_id: str
    outcome: str


@dataclass(frozen=True)
class Openings:
    """All known openings of one test set, the earliest first."""

    openings: Sequence[Opening]
    ledgers: Sequence[Path]  # the files that were read
    num_torn: int = 0  # lines cut short while they were written: no patch was read yet
    num_lost: int = 0  # lines that a run remembers and no ledger has; their openings are counted

    @property
    def num(self) -> int:
        return len(self.openings)

    @property
    def num_champions(self) -> int:
        return len({each.champion for each in self.openings if each.champion is not None})

    @property
    def num_unsealed(self) -> int:
        return sum(not each.sealed for each in self.openings)

    def before_first_of(self, champion: str) -> list[Opening]:
        """Return the openings for others before the first for this champion."""
        ids = [each.champion for each in self.openings]
        return list(self.openings[: ids.index(champion)] if champion in ids else self.openings)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, and where they were read, as JSON can hold them."""
        return {
            "said": str(self),
            "num": self.num,
            "num_champions": self.num_champions,
            "num_unsealed": self.num_unsealed,
            "num_lost": self.num_lost,
            "ledgers": [str(path) for path in self.ledgers],
        }

    def __str__(self) -> str:
        """Return "This test set was opened 3 times, by 2 champions; once unsealed."."""
        if not self.openings:
            return "This test set has not been opened."
        champions = {0: "no champion", 1: "1 champion"}.get(
            self.num_champions, f"{self.num_champions} champions"
        )
        unsealed = f"; {_times(self.num_unsealed)} unsealed" if self.num_unsealed else ""
        return f"This test set was opened {_times(self.num)}, by {champions}{unsealed}."


def ledger_path(folder: Path, x_sha256: str) -> Path:
    """Return where the openings of the test set with these patches stand in `folder`."""
    return folder / f"test_openings-{x_sha256[:12]}.jsonl"


def read_openings(x_sha256: str, folders: Iterable[Path], copy_path: Path | None) -> Openings:
    """Return the openings in the ledgers of `folders` and in a run's own copy, each once.

    Raises RunError when a ledger was tampered with, see `read_ledger`.
    """
    paths = [ledger_path(folder, x_sha256) for folder in dict.fromkeys(folders)]
    in_ledgers = {path: read_ledger(path) for path in paths}
    lines = dict.fromkeys(line for found in in_ledgers.values() for line in found)
    copies = [] if copy_path is None else _read_copies(copy_path, x_sha256)
    lost = [line for line in copies if line not in lines]
    entries = [line.entry for line in (*lines, *lost)]
    outcomes = {each["opening"]: each["outcome"] for each in entries if each["event"] == ENDED}
    openings = {
        each["opening"]: _opening(each, outcomes.get(each["opening"], ""))
        for each in entries
        if each["event"] == OPENED
    }
    return Openings(
        openings=sorted(openings.values(), key=lambda each: each.time),  # stable: as written
        ledgers=[path for path, found in in_ledgers.items() if found],
        num_torn=sum(each["event"] == TORN for each in entries),
        num_lost=len(lost),
    )


def check_openings(openings: Openings, champion: str | None) -> list[Finding]:
    """Return what must be known beside a test score of `champion`, the SHA-256 of its content."""
    findings = []
    if openings.num_lost:
        message = (
            f"{openings.num_lost} lines about openings of the test set, of which this run kept "
            "copies, are in no ledger: its end was cut off, or the file was lost, replaced or left "
            "behind. They are counted here; openings by other runs may be missing without a trace."
        )
        findings.append(Finding("ledger-incomplete", "error", message, "Restore the ledger."))
    if champion is not None and (others := openings.before_first_of(champion)):
        num_unsealed = sum(not each.sealed for each in others)
        unsealed = f", {_times(num_unsealed)} unsealed" if num_unsealed else ""
        message = (
            f"Before this champion was first tested, the test set had been opened "
            f"{_times(len(others))} for others{unsealed}: whoever saw those scores could choose by "
            "them, and then these are too good."
        )
        findings.append(Finding("test-seen-before", "warning", message))
    return findings


def record_opening(
    entry: Mapping[str, Any], x_sha256: str, folders: Sequence[Path], copy_path: Path
) -> Path:
    """Write that a test set is opened, and return the ledger: the first of `folders` that can be.

    `entry` holds the fields of `Opening` but the outcome and the ledger, its id as "opening", and
    whatever else should be known. When this returns, the line is on the disk, and so is its copy at
    `copy_path`. Raises RunError where none of `folders` can be written, where a disk is full, and
    when a ledger was tampered with.
    """
    return _append({"event": OPENED, **entry}, x_sha256, folders, copy_path)


def record_outcome(
    opening: str, outcome: Mapping[str, Any], x_sha256: str, ledger: Path, copy_path: Path
) -> None:
    """Write how the opening with this id, which stands in `ledger`, ended; raises RunError."""
    _append({"event": ENDED, "opening": opening, **outcome}, x_sha256, [ledger.parent], copy_path)


def _append(
    entry: Mapping[str, Any], x_sha256: str, folders: Sequence[Path], copy_path: Path
) -> Path:
    refused = []
    for folder in dict.fromkeys(folders):
        path = ledger_path(folder, x_sha256)
        try:
            line = append_line(path, entry)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise RunError(_explain(path, error)) from error
            refused.append(f"{path}: {error.strerror or error}")
            continue
        for each in refused:
            logger.warning("%s. The opening is written in %s instead", each, path)
        _keep_copy(copy_path, line)
        return path
    raise RunError(
        f"the opening of the test set cannot be written down: {'; '.join(refused)}. The test set "
        "is opened only where that is counted: set data.ledger_dir to a folder you may write to."
    )


def _explain(path: Path, error: OSError) -> str:
    return (
        f"the opening of the test set cannot be written down in {path}: {error.strerror or error}. "
        "The test set is opened only where that is counted: make room, or set data.ledger_dir to "
        "a folder with room."
    )


def _keep_copy(path: Path, line: Line) -> None:
    """Add a line to the run's own copy, which is no ledger: its lines are of several places."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line.text}\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}.") from error


def _read_copies(path: Path, x_sha256: str) -> list[Line]:
    """Return the copied lines about these patches; one cut short says nothing."""
    if not path.is_file():
        return []
    lines = [Line(text) for text in path.read_text(encoding="utf-8").split("\n")[:-1]]
    try:
        ids = {
            line.entry["opening"]
            for line in lines
            if line.entry["event"] == OPENED and line.entry["data"]["x_sha256"] == x_sha256
        }
        return [line for line in lines if line.entry["opening"] in ids]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged: these copies of lines of the test set's ledger cannot be read "
            f"({error}). Restore it from a backup."
        ) from error


def _opening(entry: Mapping[str, Any], outcome: str) -> Opening:
    names = [each.name for each in dataclasses.fields(Opening)]
    values = {"id": entry["opening"], **entry, "outcome": outcome}
    if missing := [name for name in names if name not in values]:
        raise RunError(
            f"the opening in line {entry['number']} of a test set's ledger does not say "
            f"{', '.join(missing)}: another release wrote it. Read it with that release."
        )
    return Opening(**{name: values[name] for name in names})


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
