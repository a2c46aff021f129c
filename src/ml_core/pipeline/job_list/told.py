"""The list of jobs, and a single one in full, as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.cluster.slurm.fields import duration
from ml_core.pipeline.job_list.same_tasks import merge_tasks

HEADER = ("JOB", "NAME", "STATE", "TIME/LIMIT")
INDENT = "    "
WORTH_TELLING_S = 60  # of a shorter job Slurm has measured its start at most
NARROWEST = 40  # below, wrapped sentences are harder to read than broken ones


def render_list(records: Sequence[Mapping[str, Any]], width: int | None) -> str:
    """Return a line for each job, and below it, indented, what there is to say about it.

    `records` are those of `describe`; `width` is that of the terminal, None for no limit.
    """
    records = merge_tasks(records)
    rows = [HEADER, *(_cells(record) for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:  # the name is what gives way
        widths[1] = max(8, min(widths[1], width - sum(widths) + widths[1] - 2 * len(INDENT)))
    lines = [_row(HEADER, widths)]
    for cells, record in zip(rows[1:], records, strict=True):
        lines.append(_row(cells, widths))
        lines += [_wrapped(note, width, INDENT) for note in _notes(record)]
    return "\n".join(lines)


def render_in_full(record: Mapping[str, Any], width: int | None) -> str:
    """Return all that is known of one job, a fact a line, and the end of its log."""
    facts = {
        "why": record["why"],
        "go on": record["go_on"] if _may_go_on(record) else None,
        "time": _times(record),
        "used": record["used"],
        "next time": "; ".join(record["advice"]),
        "on": _where(record),
        "starts": str(record["restarts"] + 1) if record["restarts"] else None,
        "submitted": record["command"],
        "folder": record["folder"],
        "log": record["log"] and f"{record['log']}{_of_log(record)}",
    }
    lines = [f"job {record['id']}  {record['name']}  {record['state']}"]
    lines += [_fact(name, text, width) for name, text in facts.items() if text]
    lines += [f"{INDENT}| {line}" for line in record["log_end"]]
    return "\n".join(lines)


def _cells(record: Mapping[str, Any]) -> tuple[str, str, str, str]:
    elapsed, limit = record["elapsed_s"], record["limit_s"]
    time = "" if elapsed is None else duration(elapsed)
    if time and limit is not None:
        time += f"/{duration(limit)}"
    return record["id"], record["name"], record["state"], time


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    shown = [_cut(cell, size).ljust(size) for cell, size in zip(cells, widths, strict=True)]
    return "  ".join(shown).rstrip()


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"


def _notes(record: Mapping[str, Any]) -> list[str]:
    """Return what a list says below a job; of one that did well, what it used."""
    notes = []
    if record["why"] and record["state"] != "COMPLETED":
        notes.append(record["why"])
    if _may_go_on(record):
        notes.append(f"go on: {record['go_on']}")
    if record["restarts"]:
        times = "once" if record["restarts"] == 1 else f"{record['restarts']} times"
        notes.append(f"requeued {times}")
    if (record["elapsed_s"] or 0) >= WORTH_TELLING_S:
        notes += [f"used {record['used']}"] if record["used"] else []
        notes += record["advice"]
    return notes


def _may_go_on(record: Mapping[str, Any]) -> bool:
    """Return whether to say how it is taken up: it has begun, is over, and did not end well."""
    told_by_log = record["elapsed_s"] is None and record["log_end"]
    has_begun = record["nodes"] is not None or told_by_log
    return bool(record["go_on"] and record["is_over"] and has_begun) and not record["did_well"]


def _times(record: Mapping[str, Any]) -> str | None:
    """Return ``0:41 of 4:00:00, started 2026-01-02T03:04:05``."""
    elapsed, limit = record["elapsed_s"], record["limit_s"]
    told = [] if elapsed is None else [duration(elapsed)]
    if told and limit is not None:
        told[0] += f" of {duration(limit)}"
    told += [f"{what} {record[what]}" for what in ("started", "ended") if record[what]]
    return ", ".join(told)


def _where(record: Mapping[str, Any]) -> str | None:
    partition = f"partition {record['partition']}" if record["partition"] else ""
    return ", ".join(filter(None, (record["nodes"], partition)))


def _of_log(record: Mapping[str, Any]) -> str:
    if record["log_problem"]:
        return f" (cannot be read: {record['log_problem']})"
    return "" if record["log_end"] else " (nothing written yet)"


def _fact(name: str, text: str, width: int | None) -> str:
    indent = f"{INDENT}{name:<11}"
    if name in ("go on", "submitted", "folder", "log"):  # to be copied: no line breaks within
        return f"{indent}{text}"
    return _wrapped(text, width, indent)


def _wrapped(text: str, width: int | None, indent: str) -> str:
    if width is None or text.startswith("go on: "):
        return f"{indent}{text}"
    return textwrap.fill(
        text,
        max(width, NARROWEST),
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
