"""A finding's facts, which differ from check to check, as small tables a reader can scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.page.text import UNDEFINED, percent, plain, short_hash

MAX_ROWS = 24  # of one table; what a reader wants of more is in audit.json
MAX_COLUMNS = 8
MAX_LETTERS = 160  # of one cell
MAX_TABLES = 6
SHORT = 40  # letters


@dataclass(frozen=True)
class FactTable:
    """`rows` of cells as text, the first cell of each being its name; `left_out` are not shown.

    Without `columns` it is a list of names and values.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0

    @property
    def is_list(self) -> bool:
        """Whether it is names with short values, which fit beside each other."""
        return not self.columns and all(len(row[1]) <= SHORT for row in self.rows)


def fact_tables(facts: Mapping[str, Any]) -> list[FactTable]:
    """Return single values first, as one table, then a table for each nested value.

    A dict of dicts, or a list of dicts, has a column for each key. Tables, rows, columns and
    cells beyond a cap are left out; nothing raises, whatever JSON holds.
    """
    single = {key: value for key, value in facts.items() if not _is_nested(value)}
    tables = [_pairs("", single)] if single else []
    for key, value in facts.items():
        if _is_nested(value) and len(tables) < MAX_TABLES:
            tables.append(_nested(_words(key), value))
    return tables


def cell(value: Any, key: str = "") -> str:
    """Return one value as a reader would write it, cut short; a share is a percentage."""
    if isinstance(value, float) and not math.isfinite(value):
        return UNDEFINED
    if isinstance(value, int | float) and not isinstance(value, bool):
        if _is_share(key) and 0 <= value <= 1:
            return "< 0.01 %" if 0 < value < 1e-4 else percent(value, 2 if 0 < value < 0.01 else 1)
        return _number(value)
    if isinstance(value, list | tuple) and not _has_mappings(value):
        said = ", ".join(cell(item, key) for item in value[:40]) or "none"
    elif isinstance(value, str) and "sha256" in key:
        said = short_hash(value)
    else:
        said = plain(list(value) if isinstance(value, tuple) else value)
    return said if len(said) <= MAX_LETTERS else said[: MAX_LETTERS - 1] + "…"


def _number(value: float) -> str:
    if abs(value) >= 1000 and abs(value) < 1e15:
        return f"{value:,.0f}" if abs(value) >= 10_000 or value == int(value) else f"{value:,.1f}"
    return f"{value:.4g}"


def _nested(title: str, value: Any) -> FactTable:
    if isinstance(value, Mapping):
        if value and all(isinstance(item, Mapping) for item in value.values()):
            return _matrix(title, [(str(name), item) for name, item in value.items()])
        return _pairs(title, value)
    records = [item if isinstance(item, Mapping) else {"value": item} for item in value]
    return _matrix(title, [(str(number), item) for number, item in enumerate(records, start=1)])


def _matrix(title: str, records: Sequence[tuple[str, Mapping[str, Any]]]) -> FactTable:
    keys = list(dict.fromkeys(key for _, record in records for key in record))[:MAX_COLUMNS]
    rows = tuple(
        (_words(name), *(cell(record[key], key) if key in record else "" for key in keys))
        for name, record in records[:MAX_ROWS]
    )
    return FactTable(title, tuple(_words(key) for key in keys), rows, len(records) - len(rows))


def _pairs(title: str, values: Mapping[str, Any]) -> FactTable:
    shown = list(values.items())[:MAX_ROWS]
    rows = tuple((_words(key), cell(value, f"{title} {key}")) for key, value in shown)
    return FactTable(title, (), rows, len(values) - len(rows))


def _is_nested(value: Any) -> bool:
    return (isinstance(value, Mapping) and bool(value)) or _has_mappings(value)


def _has_mappings(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def _is_share(key: str) -> bool:
    return any(word in key.lower() for word in ("share", "prevalence", "percent_of"))


def _words(key: Any) -> str:
    return str(key).removeprefix("num_").replace("_", " ")
