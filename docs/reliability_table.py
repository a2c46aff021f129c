"""docs/reliability.md: the fault matrix, and for each row what the last full run of it held.

Reads docs/fault-record.json, which `make test-faults` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HEAD = """\
# What was broken on purpose, and what held

Each row is a fault that training runs meet in practice: it is injected into real commands, on real
files, as often as the table says, and afterwards what is in the third column must hold. `make
test-faults` injects them all (`tests/faults/`) and writes the counts to `docs/fault-record.json`,
from which this page is made. A row without a run says "not shown". A commit that ends in `+` had
changes that were not committed.
"""
WHAT_HEAD = """\
## What was tried

One line per test. Row 24 counts the negative controls: a protection is switched off, and the test
that guards it must fail.
"""


class Row(NamedTuple):
    """A row of the matrix: what is broken, and what must hold afterwards."""

    fault: str
    must_hold: str


MATRIX = {
    1: Row(
        "SIGKILL at any moment: start, training, save, evaluation",
        "the run resumes and ends in the bits of one that was never killed; at most one interval "
        "of work is lost; each step is logged once",
    ),
    2: Row(
        "SIGKILL at each system call of the save path",
        "the previous checkpoint or the new one, never a mixture, never none",
    ),
    3: Row(
        "disk full, quota used up or I/O error at each system call of the save path",
        "no checkpoint is lost; the command says what happened; it resumes when there is room",
    ),
    4: Row(
        "power cut: lost, reordered and torn writes",
        "what loads is a checkpoint that was saved, to the bit",
    ),
    5: Row(
        "bit rot in checkpoints, data, journals, logs",
        "detected before use, with the file named; the checkpoint before it is used",
    ),
    6: Row(
        "the newest one to three checkpoints are bad",
        "the run resumes from the newest good one",
    ),
    7: Row(
        "data files truncated, with holes, locked, or made to do harm",
        "refused in words that say what to do; no crash",
    ),
    8: Row(
        "a reader process killed, stopped or out of memory",
        "noticed within a minute; no patch is skipped; the same batches after a restart",
    ),
    9: Row(
        "one of several training processes dies or stalls",
        "the others end within a minute; started again, the run ends in the same bits",
    ),
    10: Row(
        "one batch holds NaN, infinities or values far too large",
        "training stops and names the patches (a spike that stays finite does not stop it and is "
        "found at its step); the last good checkpoint is kept",
    ),
    11: Row("time limit of the scheduler", "a checkpoint before the kill; the job goes on"),
    12: Row("preemption", "the job goes on elsewhere and ends in the same bits"),
    13: Row(
        "two writers of one run",
        "the older is fenced off: none of its checkpoints and lines is accepted",
    ),
    14: Row("the scheduler restarts", "jobs are unharmed; logs are appended to"),
    15: Row("a node on which every job fails", "few tries, then a clear final state"),
    16: Row(
        "the MLflow server refuses, hangs, fails, is slow or goes",
        "a step does no work for it; after a sync MLflow has the local log exactly; a second sync "
        "changes nothing",
    ),
    17: Row(
        "a study's claims stale, its journals torn, its workers asleep, clocks an hour off",
        "the study opens; each dead trial is given up once; the count of trials is exact",
    ),
    18: Row("network file system stops or loses handles", "a clear error; no wrong data"),
    19: Row(
        "an environment in which the numbers would be others",
        "refused before the first step, with the variable named",
    ),
    20: Row("a bundle made to do harm", "nothing of it is executed"),
    21: Row("a bundle that was changed", "refused"),
    22: Row(
        "no network, an empty home, nothing may be written but the result",
        "predict and verify work and connect to nothing; predictions are the same bits",
    ),
    23: Row(
        "secrets in the environment, the config and the address of the server",
        "none of them in logs, run directories or MLflow",
    ),
    24: Row("each protection switched off", "the test that guards it fails"),
    25: Row(
        "a config with anything wrong in it",
        "read as it says or refused in words: no traceback, no hang, no wrong value",
    ),
}


def render_reliability(record: Path) -> str:
    """Return docs/reliability.md from the lines of `record`, which need not exist."""
    lines: list[dict[str, Any]] = json.loads(record.read_text()) if record.is_file() else []
    if unknown := {line["row"] for line in lines} - set(MATRIX):
        raise ValueError(f"{record} has rows that the matrix has not: {sorted(unknown)}")
    parts = [HEAD, _matrix_table(lines)]
    if lines:
        parts += [WHAT_HEAD, _table(WHAT_COLUMNS, (_what_cells(line) for line in lines))]
    return "\n".join(parts)


COLUMNS = ("#", "fault", "must hold afterwards", "tried", "held", "date", "commit")
WHAT_COLUMNS = ("#", "what was broken", "tried", "held", "seconds", "draw")


def _matrix_table(lines: Iterable[Mapping[str, Any]]) -> str:
    by_row: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_row.setdefault(line["row"], []).append(line)
    return _table(
        COLUMNS,
        (
            (str(number), row.fault, row.must_hold, *_counts(by_row.get(number, [])))
            for number, row in MATRIX.items()
        ),
    )


def _counts(lines: list[Mapping[str, Any]]) -> tuple[str, str, str, str]:
    """Return tried, held, date and commit of a row; the oldest date of its tests is its date."""
    if not lines:
        return "not shown", "", "", ""
    tried, held = (sum(line[key] for line in lines) for key in ("tried", "held"))
    commits = ", ".join(sorted({line["commit"] for line in lines}))
    short = "" if all(line["draw"] == "full" for line in lines) else " (short draw)"
    bold = "" if held == tried else "**"
    return (
        f"{tried:,}{short}",
        f"{bold}{held:,}{bold}",
        min(line["date"] for line in lines),
        commits,
    )


def _what_cells(line: Mapping[str, Any]) -> tuple[str, ...]:
    tried, held = f"{line['tried']:,}", f"{line['held']:,}"
    return str(line["row"]), line["what"], tried, held, f"{line['seconds']:.1f}", line["draw"]


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rule = "|".join("---" for _ in columns)
    body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(columns)} |", f"|{rule}|", *body]) + "\n"
