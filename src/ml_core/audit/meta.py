"""Reading a split's meta csv: from which slide, and from where on it, each patch was cut."""

from __future__ import annotations

import difflib
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from ml_core.errors import DataError, did_you_mean

REQUIRED = ("wsi", "coord_x", "coord_y")
FLAGS = ("tumor_patch", "center_tumor_patch")
PATIENT = "patient"

# A row of PCam's own files has about 60 bytes; this bounds what a file without line breaks, or one
# that is no csv at all, can make us read.
_MAX_ROW_BYTES = 1024
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def load_meta(path: str | Path, num_rows: int) -> pd.DataFrame:
    """Return what the csv at `path` says of the `num_rows` patches of its split, in their order.

    Columns: `slide` (str) and `patient` (str), None where unknown; `coord_x`, `coord_y` (float,
    NaN where empty); `tumor_patch` and `center_tumor_patch` (nullable boolean) where the file has
    them. Needed in the file are wsi, coord_x and coord_y; `patient` is optional and never derived
    from a slide's name, since whether Camelyon16 has one slide per patient is not published.

    coord_x and coord_y are handed on in the file's own unit, which it does not state.

    Raises DataError when the file is missing, unreadable, no UTF-8 csv, lacks a column, has another
    number of rows than there are patches or rows out of order, or a value that is none of its kind.
    """
    path = Path(path)
    raw = _read_text(path, num_rows)
    _check_columns(path, list(raw.columns))
    if len(raw) != num_rows:
        raise DataError(
            f"{path} has {len(raw):,} rows for {num_rows:,} patches; one row per patch is needed, "
            "in the order of the patches. It is of another split, or incomplete."
        )
    _check_order(path, raw)
    meta = pd.DataFrame(
        {
            "slide": _texts(raw["wsi"]),
            "coord_x": _numbers(path, raw["coord_x"]),
            "coord_y": _numbers(path, raw["coord_y"]),
            "patient": _texts(raw[PATIENT]) if PATIENT in raw else None,
        }
    )
    for name in FLAGS:
        if name in raw:
            meta[name] = _booleans(path, raw[name])
    return meta


def _read_text(path: Path, num_rows: int) -> pd.DataFrame:
    """Return every cell as text, NaN where empty."""
    try:
        size = path.stat().st_size
        if size > (num_rows + 2) * _MAX_ROW_BYTES:
            raise DataError(
                f"{path} is {size:,} bytes for {num_rows:,} patches, more than "
                f"{_MAX_ROW_BYTES:,} a row: it is not the meta csv of this split."
            )
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing{_nearest(path)}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start:,} is {error.object[error.start]:#04x}. "
            "Store it as plain UTF-8 csv; a .gz must be unpacked first."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty. Copy or unpack it again.")
    return _parse(path, text)


def _parse(path: Path, text: str) -> pd.DataFrame:
    if "\0" in text:
        raise DataError(f"{path} holds zero bytes: it is damaged. Copy or unpack it again.")
    try:
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False, na_values=[""])
    except ValueError as error:  # pandas' own errors are such
        raise DataError(f"{path} is not a csv table: {str(error).strip()}.") from error
    # blanks around a name or value are a matter of taste, and of tools that line columns up
    return table.rename(columns=str.strip)


def _nearest(path: Path) -> str:
    try:
        names = sorted(each.name for each in path.parent.iterdir())
    except OSError:
        return f": there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; the nearest name there: {near[0]}" if near else ""


def _check_columns(path: Path, there: list[str]) -> None:
    for name in REQUIRED:
        if name not in there:
            raise DataError(
                f"{path}: no column '{name}'; it has: {', '.join(there)}. Needed are "
                f"{', '.join(REQUIRED)}, separated by commas.{did_you_mean(name, there)}"
            )


def _check_order(path: Path, raw: pd.DataFrame) -> None:
    """Refuse a file whose own row numbers say that it was sorted by something else."""
    first = raw.columns[0]
    if not first.startswith("Unnamed"):
        return
    numbers = pd.to_numeric(raw[first], errors="coerce").to_numpy(np.float64)
    rows = np.arange(len(raw))
    moved = np.flatnonzero(numbers != rows)
    if len(moved) and np.array_equal(np.sort(numbers), rows):
        raise DataError(
            f"{path}: row {moved[0]} is numbered {int(numbers[moved[0]])} in its first column: the "
            "rows are out of order. Sort them by that column, so that they follow the patches."
        )


def _texts(column: pd.Series) -> pd.Series:
    stripped = column.str.strip()
    return stripped.astype(object).where(stripped.notna() & (stripped != ""), None)


def _numbers(path: Path, column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    wrong = ~numbers.between(-np.inf, np.inf, inclusive="neither") & column.notna()
    _refuse(path, column, wrong, "numbers, or nothing where unknown")
    return numbers


def _booleans(path: Path, column: pd.Series) -> pd.Series:
    values = column.str.strip().str.lower().map(_BOOLEANS)
    _refuse(path, column, values.isna() & column.notna(), "True and False")
    return values.astype("boolean")


def _refuse(path: Path, column: pd.Series, wrong: pd.Series, allowed: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{path}: {int(wrong.sum()):,} values of {column.name} cannot be read, the first in "
            f"row {row}: {str(column.iloc[row])[:40]!r}. Allowed are {allowed}."
        )
