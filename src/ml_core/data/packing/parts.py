"""What a source holds, as the splits it is to become."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ml_core.data.layout import (
    LABEL_KEY,
    PATCH_KEY,
    SPLITS,
    check_same_length,
    load_labels,
    split_paths,
)
from ml_core.data.packing.label_table import load_label_table, load_meta
from ml_core.data.packing.source import (
    Hdf5Source,
    ImageSource,
    Part,
    check_files_are_there,
    list_images,
)
from ml_core.errors import DataError

log = logging.getLogger("ml_core.data")

LABEL_TABLE_NAME = "labels.csv"


def splits_in(folder: Path) -> list[str]:
    """Return the splits of which the folder has a PCam file, in PCam's order."""
    found = []
    for split in SPLITS:
        paths = split_paths(folder, split)
        if paths.x.exists() or paths.y.exists():
            found.append(split)
    return found


def parts_of_pcam(folder: Path) -> list[Part]:
    """Return every split of a PCam folder, with its meta csv where there is one."""
    parts = []
    for split in splits_in(folder):
        paths = split_paths(folder, split)
        meta = paths.meta if paths.meta.exists() else None
        parts.append(part_of_hdf5(paths.x, split, labels_path=paths.y, meta_path=meta))
    return parts


def part_of_hdf5(
    path: Path,
    split: str,
    *,
    labels_path: Path | None = None,
    meta_path: Path | None = None,
    key: str = PATCH_KEY,
    label_key: str = LABEL_KEY,
) -> Part:
    """Return all patches of one HDF5 file.

    Labels come from `labels_path`, else from the neighbour whose name ends in _y where this one
    ends in _x, else from `path` itself; the meta csv likewise, if there is one (_meta.csv).
    Raises DataError for files that are missing, damaged, or do not belong together.
    """
    split_paths(path.parent, split)  # refuses an unknown split before anything is read
    source = Hdf5Source(path, key)
    labels_path = labels_path or _neighbour(path, "_y" + path.suffix) or path
    labels = load_labels(labels_path, label_key)
    check_same_length(source.file, labels, labels_path)
    meta_path = meta_path or _neighbour(path, "_meta.csv")
    meta = load_meta(meta_path, labels) if meta_path is not None else None
    return Part(split, source, np.arange(len(labels)), labels, meta)


def parts_of_images(
    folder: Path, table_path: Path | None, split: str | None, size: tuple[int, int] | None = None
) -> list[Part]:
    """Return the images that a csv names (`folder`/labels.csv unless given), by its column split.

    Without that column all are one split, `split` or else train. Images that the csv does not name
    have no label: they are left out with a warning. Raises DataError as `load_label_table` does,
    and for files that are missing.
    """
    table_path = table_path or _find_table(folder)
    table = load_label_table(table_path)
    if table.splits is not None and split is not None:
        raise DataError(
            f"{table_path} has a column split, and --split {split} is given too. Leave one out."
        )
    there = list_images(folder)
    check_files_are_there(table, folder, there)
    unnamed = sorted(there.difference(table.files))
    if unnamed:
        log.warning(
            "%s: %d of %d images are not in %s and are left out, for example %s.",
            folder, len(unnamed), len(there), table_path.name, ", ".join(unnamed[:3]),
        )  # fmt: skip
    splits = np.array(table.splits or [split or SPLITS[0]] * len(table.files))
    source = ImageSource(folder, table.files, size)
    parts = []
    for name in (s for s in SPLITS if s in splits):
        rows = np.flatnonzero(splits == name)
        meta = None if table.meta is None else table.meta.iloc[rows]
        parts.append(Part(name, source, rows, table.labels[rows], meta))
    return parts


def _find_table(folder: Path) -> Path:
    path = folder / LABEL_TABLE_NAME
    if path.is_file():
        return path
    tables = sorted(p.name for p in folder.glob("*.csv"))
    there = f"it has {', '.join(tables[:5])}" if tables else "it has no csv"
    raise DataError(
        f"{folder} holds none of PCam's files and no {LABEL_TABLE_NAME} about images; {there}. "
        "Name the csv with the columns file and label: --labels FILE.csv"
    )


def _neighbour(path: Path, ending: str) -> Path | None:
    """Return the file named as `path` with `ending` for its "_x.h5", where there is one."""
    if not path.stem.endswith("_x"):
        return None
    other = path.with_name(path.stem.removesuffix("_x") + ending)
    return other if other.exists() else None
