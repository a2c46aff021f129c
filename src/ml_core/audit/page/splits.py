"""The table of splits: a property in each row, so that the splits stand side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.page.text import UNDEFINED, count, percent, plain, short_hash

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """`is_odd`: worth a second look; `whole` is the whole value where `text` is a part of it."""

    text: str
    is_odd: bool = False
    whole: str = ""


@dataclass(frozen=True)
class PropertyRow:
    """One property of every split; `note` says why a reader should look."""

    name: str
    cells: tuple[Cell, ...]
    note: str = ""
    is_code: bool = False


def split_rows(splits: Mapping[str, Record]) -> list[PropertyRow]:
    """Return what audit.json says of each split, odd cells marked."""
    records = list(splits.values())
    rows = [
        _row("patches in the file", records, lambda r: count(r.get("num_rows"))),
        _examined(records),
        _row("tumour", records, _tumour),
        _unlabelled(records),
        _same("patch", records, lambda r: " × ".join(map(str, r.get("shape") or ())) or UNDEFINED),
        _same("stored as", records, lambda r: plain(r.get("dtype"))),
        _same("values", records, lambda r: plain(r.get("value_range"))),
        _same("layout", records, lambda r: plain(r.get("layout"))),
        _row("size of x", records, lambda r: size(r.get("num_bytes"))),
        _identity(splits),
        _row("flagged", records, lambda r: _of_examined(r, "num_flagged")),
        _row("to be left out", records, lambda r: _of_examined(r, "num_excluded")),
        _hashes("SHA-256 of x", records, "x_sha256"),
        _hashes("SHA-256 of y", records, "y_sha256"),
    ]
    return [row for row in rows if row is not None]


def size(num_bytes: float | None) -> str:
    """Return 1327437824 as "1.33 GB" (powers of 1,000, as a file manager says it)."""
    if num_bytes is None:
        return UNDEFINED
    amount = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def _row(name: str, records: Sequence[Record], say: Callable[[Record], str]) -> PropertyRow:
    return PropertyRow(name, tuple(Cell(say(record)) for record in records))


def _same(name: str, records: Sequence[Record], say: Callable[[Record], str]) -> PropertyRow:
    """Return a row in which every split should say the same; otherwise all of it is odd."""
    said = [say(record) for record in records]
    differ = len(set(said)) > 1
    return PropertyRow(
        name, tuple(Cell(text, differ) for text in said), "splits differ" if differ else ""
    )


def _examined(records: Sequence[Record]) -> PropertyRow:
    cells = tuple(
        Cell(
            "all" if r.get("num_examined") == r.get("num_rows") else count(r.get("num_examined")),
            r.get("num_examined") != r.get("num_rows"),
        )
        for r in records
    )
    return PropertyRow("examined", cells, "a sample" if any(cell.is_odd for cell in cells) else "")


def _tumour(record: Record) -> str:
    labelled = (record.get("num_rows") or 0) - (record.get("num_unlabelled") or 0)  # of the file
    if labelled <= 0:
        return UNDEFINED
    positive = record.get("num_positive") or 0
    return f"{count(positive)} ({_percent(positive / labelled)})"


def _unlabelled(records: Sequence[Record]) -> PropertyRow | None:
    if not any(record.get("num_unlabelled") for record in records):
        return None
    cells = [
        Cell(count(record.get("num_unlabelled")), bool(record.get("num_unlabelled")))
        for record in records
    ]
    return PropertyRow("without a label", tuple(cells))


def _identity(splits: Mapping[str, Record]) -> PropertyRow:
    cells = []
    for name, record in splits.items():
        official = record.get("official")
        if official is None:
            is_known = record.get("is_official_known", True)
            cells.append(Cell("not an official file" if is_known else "not looked at"))
        else:
            cells.append(Cell(f"official PCam {official}", official != name))
    swapped = any(cell.is_odd for cell in cells)
    return PropertyRow("identity", tuple(cells), "not the split it is named" if swapped else "")


def _of_examined(record: Record, key: str) -> str:
    number, examined = record.get(key), record.get("num_examined")
    if not number or not examined:
        return count(number)
    return f"{count(number)} ({_percent(number / examined)})"


def _hashes(name: str, records: Sequence[Record], key: str) -> PropertyRow:
    hashes = [record.get(key) for record in records]
    cells = tuple(
        Cell(short_hash(value), bool(value) and hashes.count(value) > 1, str(value or ""))
        for value in hashes
    )
    note = "same content" if any(cell.is_odd for cell in cells) else ""
    return PropertyRow(name, cells, note, is_code=True)


def _percent(share: float) -> str:
    return percent(share).replace(" ", "\N{NO-BREAK SPACE}")
