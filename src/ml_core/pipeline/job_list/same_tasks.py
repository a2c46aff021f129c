"""Tasks of one array that have the same to say, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

# what may differ between tasks that are told as one
_OF_ONE = {"id", "log", "log_end", "log_problem", "started", "ended", "nodes", "go_on"}


def merge_tasks(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the records with neighbours of one array that differ in no fact as 12_[0-3,7]."""
    return [_merged(list(same)) for _, same in groupby(records, key=_what_is_told)]


def _what_is_told(record: Mapping[str, Any]) -> tuple[str, str]:
    number, _, task = record["id"].partition("_")
    if not task.isdecimal():
        return record["id"], ""
    facts = {key: value for key, value in record.items() if key not in _OF_ONE}
    return number, repr(facts)


def _merged(same: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(same) == 1:
        return dict(same[0])
    number = same[0]["id"].partition("_")[0]
    tasks = (int(record["id"].partition("_")[2]) for record in same)
    return {**same[0], "id": f"{number}_[{_spans(tasks)}]"}


def _spans(numbers: Iterable[int]) -> str:
    """Return 0, 1, 2, 5 as ``0-2,5``, as Slurm writes them."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ",".join(str(each[0]) + (f"-{each[-1]}" if each[1:] else "") for each in spans)
