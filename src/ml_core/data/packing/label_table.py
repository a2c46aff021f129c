"""The csv beside a folder of images: file names, labels, and where each patch was cut."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ml_core.data.layout import SPLITS, Labels
from ml_core.errors import DataError, did_you_mean

log = logging.getLogger("ml_core.data")

# What a column may be called, in any case of letters; only the first two are needed.
COLUMNS = {
    "file": ("file", "filename", "file_name", "path", "image"),
    "label": ("label", "y", "target", "center_tumor_patch"),
    "wsi": ("wsi", "slide", "slide_id"),
    "patient": ("patient", "patient_id"),
    "coord_x": ("coord_x",),
    "coord_y": ("coord_y",),
    "tumor_patch": ("tumor_patch",),
    "split": ("split",),
}
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
# The columns of PCam's own meta files, in their order.
META_COLUMNS = ("coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")


@dataclass(frozen=True)
class LabelTable:
    """One entry per line of the csv, in its order."""

    files: tuple[str, ...]  # relative to the folder, with "/"
    labels: Labels  # (N,)
    splits: tuple[str, ...] | None  # None where the csv does not say
    meta: pd.DataFrame | None  # as PCam's meta csv, text; None without slides and places


def load_label_table(path: Path) -> LabelTable:
    """Return the csv at `path`, checked line by line but without a look at the files it names.

    Raises DataError, naming rows counted from 0, for a csv that cannot be parsed, columns that are
    missing or there twice, names that are empty, repeated, absolute or lead out of the folder,
    labels other than 0 and 1, splits that PCam does not have, and coordinates that are no numbers.
    """
    table = _name_columns(read_text_table(path), path)
    files = [_plain_name(name, path, row) for row, name in enumerate(table["file"])]
    _refuse_repeats(files, path)
    labels = table["label"].str.lower().map(LABELS)
    _refuse(labels.isna(), table["label"], path, "labels are neither 0 nor 1", "0 and 1")
    for name in ("coord_x", "coord_y"):
        if name in table:
            wrong = pd.to_numeric(table[name], errors="coerce").isna() & (table[name] != "")
            _refuse(
                wrong, table[name], path, f"values of {name} are no numbers", "numbers or nothing"
            )
    splits = None
    if "split" in table:
        wrong = ~table["split"].isin(SPLITS)
        _refuse(wrong, table["split"], path, "splits are unknown", ", ".join(SPLITS), SPLITS)
        splits = tuple(table["split"])
    numbers: Labels = np.asarray(labels, np.int64)
    return LabelTable(tuple(files), numbers, splits, _pcam_meta(table, numbers))


def read_text_table(path: Path) -> pd.DataFrame:
    """Return a csv with every value as the text it is, blanks trimmed; raises DataError.

    Not by pandas, which fills short rows up, takes long ones for an index and renames repeated
    columns, all without a word.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as csv: {error}.") from error
    if len(lines) < 2:
        raise DataError(f"{path} has no row of values; a heading and a row per patch are needed.")
    names = [name.strip() for name in lines.pop(0)]
    if len(set(names)) != len(names):
        raise DataError(f"{path}: a column stands there twice; it has: {', '.join(names)}.")
    for row, line in enumerate(lines):
        if len(line) != len(names):
            raise DataError(
                f"{path}: row {row} has {len(line)} values where the heading has {len(names)}."
            )
    stripped = [[text.strip() for text in line] for line in lines]
    return pd.DataFrame(stripped, columns=names, dtype=object)


def load_meta(path: Path, labels: Labels) -> pd.DataFrame:
    """Return a meta csv as text, one row per label; raises DataError when the numbers differ."""
    meta = read_text_table(path)
    if len(meta) != len(labels):
        raise DataError(
            f"{path} has {len(meta):,} rows for {len(labels):,} patches. They are not of the same "
            "split, or one is incomplete."
        )
    if "center_tumor_patch" in meta:
        said = meta["center_tumor_patch"].str.lower().map(LABELS)
        num_other = int((said.notna() & (said != labels)).sum())
        if num_other:
            log.warning(
                "%s: center_tumor_patch differs from the label of %d of %d patches; is it the "
                "meta file of another split?", path, num_other, len(meta),
            )  # fmt: skip
    return meta


def _name_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the columns that are known, under the names of this project."""
    found: dict[str, str] = {}
    for column in table.columns:
        name = next((n for n, taken in COLUMNS.items() if column.lower() in taken), None)
        if name in found:
            raise DataError(f"{path}: the columns {found[name]} and {column} both mean {name}.")
        if name is not None:
            found[name] = column
    for name in ("file", "label"):
        if name not in found:
            have = ", ".join(table.columns)
            hint = " Separate the columns by commas." if ";" in have or "\t" in have else ""
            raise DataError(
                f"{path}: no column {name}; it has: {have}. Allowed names of it: "
                f"{', '.join(COLUMNS[name])}.{hint}"
            )
    return table[list(found.values())].set_axis(list(found), axis=1)


def _plain_name(name: str, path: Path, row: int) -> str:
    """Return `name` without "./" and "//"; raises DataError where it leads out of the folder."""
    plain = PurePosixPath(name)
    if not name or plain.is_absolute() or ".." in plain.parts or "\0" in name or plain.name == "":
        raise DataError(
            f"{path}, row {row}: the file name '{name}' is not allowed. Allowed are names inside "
            "the folder of images, without '..' and not starting with '/'."
        )
    return str(plain)


def _refuse_repeats(files: list[str], path: Path) -> None:
    repeated = pd.Series(files).duplicated(keep=False)
    if repeated.any():
        first = files[int(np.flatnonzero(repeated)[0])]
        rows = ", ".join(str(row) for row, name in enumerate(files) if name == first)
        raise DataError(
            f"{path}: {repeated.sum():,} rows name a file that another row names too, first "
            f"'{first}' in rows {rows}. Every image may stand there once."
        )


def _refuse(
    wrong: pd.Series[bool],
    values: pd.Series[str],
    path: Path,
    what: str,
    allowed: str,
    nearest: tuple[str, ...] = (),
) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{path}: {wrong.sum():,} {what}, first '{values[row]}' in row {row}. Allowed: "
            f"{allowed}.{did_you_mean(values[row], nearest)}"
        )


def _pcam_meta(table: pd.DataFrame, labels: Labels) -> pd.DataFrame | None:
    """Return PCam's five columns, empty where unknown, and `patient` where it is known."""
    if not {"wsi", "patient", "coord_x", "coord_y"} & set(table):
        return None
    meta = pd.DataFrame({name: table.get(name, "") for name in META_COLUMNS}, index=table.index)
    meta["center_tumor_patch"] = np.where(labels == 1, "True", "False")
    if "patient" in table:
        meta["patient"] = table["patient"]
    return meta
