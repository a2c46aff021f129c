"""exclusions.csv: which patches are left out of training and scoring, and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ml_core.data.layout import SPLITS
from ml_core.data.patch_file import Rows
from ml_core.durable import written_aside
from ml_core.errors import DataError, did_you_mean

COLUMNS = ("split", "index", "reason")


def write_exclusions(path: Path, rows: Iterable[tuple[str, int, str]]) -> None:
    """Write (split, index, reason) for every patch to leave out; `index` is its row in the file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    with written_aside(path) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8")


def load_exclusions(path: str | Path) -> Mapping[str, Rows]:
    """Return the rows to leave out of each split, rising, each once; none for a split not named.

    Raises DataError naming the line for anything but a split, a row number and a reason.
    """
    return parse_exclusions(read_exclusions(Path(path)), str(path))


def read_exclusions(path: Path) -> str:
    """Return the text of a list; raises DataError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")  # a spreadsheet may put a mark in front
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: which patches to leave out is not known. Make it again: "
            "ml-core audit."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def parse_exclusions(text: str, where: str) -> Mapping[str, Rows]:
    """Return what `load_exclusions` does, of the text of the file called `where`."""
    found: dict[str, set[int]] = {split: set() for split in SPLITS}
    lines = csv.reader(io.StringIO(text))
    try:
        header = tuple(next(lines, ()))
        if header != COLUMNS:
            raise DataError(
                f"{where} is not a list of exclusions: its first line must be "
                f"{','.join(COLUMNS)} and is {','.join(header)!r}."
            )
        for number, line in enumerate(lines, start=2):
            if line:
                split, index = _parse(line, f"{where}, line {number}")
                found[split].add(index)
    except csv.Error as error:
        raise DataError(f"{where} cannot be read: {error}.") from error
    return {split: np.array(sorted(rows), np.int64) for split, rows in found.items()}


def _parse(line: list[str], where: str) -> tuple[str, int]:
    if len(line) != len(COLUMNS):
        raise DataError(f"{where}: {len(line)} fields; needed are {', '.join(COLUMNS)}.")
    split, index, _ = line
    if split not in SPLITS:
        raise DataError(
            f"{where}: unknown split '{split}'; allowed: {', '.join(SPLITS)}."
            f"{did_you_mean(split, SPLITS)}"
        )
    if not (index.isascii() and index.isdigit() and len(index) <= 18):
        raise DataError(f"{where}: '{index}' is not a row number; 0, 1, 2, ... are.")
    return split, int(index)
