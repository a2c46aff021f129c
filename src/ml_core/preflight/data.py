"""The files of the data, as far as their headers, labels and sizes tell; no patch is hashed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from ml_core.data.layout import check_same_length, load_labels, split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.data.versions.manifest import MANIFEST_NAME, Manifest
from ml_core.errors import DataError
from ml_core.preflight.check import Check, error, ok, warning
from ml_core.preflight.there import is_folder, nearest_folder

CLOCK_TICK_S = 2.0  # the coarsest clock of a file system (FAT), by which an audit may seem older


def check_data(
    folder: Path, splits: Sequence[str], patch_size: tuple[int, int]
) -> tuple[list[Check], dict[str, int]]:
    """Return what would stop a training that reads `splits` there, and the rows of each split."""
    if not is_folder(folder):
        told = f"data.data_path: there is no folder {folder} (there is {nearest_folder(folder)})."
        remedy = "In a config a path is relative to the config's folder, after --set to this one."
        return [error("data", told, remedy)], {}
    checks: list[Check] = []
    rows: dict[str, int] = {}
    for split in splits:
        try:
            file = PatchFile(split_paths(folder, split).x)
            rows[split] = len(file)
            checks += _wrong_with(file, split, patch_size)
        except (DataError, OSError) as problem:
            checks.append(error("data", problem))
    checks += _not_as_recorded(folder, splits)
    if not any(check.level == "error" for check in checks):
        counts = ", ".join(f"{num:,} {split}" for split, num in rows.items())
        checks.insert(0, ok("data", f"{folder}: {counts} patches."))
    return checks, rows


def _wrong_with(file: PatchFile, split: str, patch_size: tuple[int, int]) -> Iterator[Check]:
    """Yield what of one split's files cannot be used, or only slowly; raises DataError."""
    y_path = split_paths(file.path.parent, split).y
    labels = load_labels(y_path)
    check_same_length(file, labels, y_path)
    if file.shape[1:3] != patch_size:
        height, width = file.shape[1:3]
        yield error(
            "data",
            f"{file.path}: patches of {height} x {width} pixels, and data.input_shape says "
            f"{patch_size[0]} x {patch_size[1]}.",
            "Set data.input_shape to what the file holds.",
        )
    if len(np.unique(labels)) == 1:
        yield error("data", f"{y_path}: all labels are {labels[0]}; {split} needs both, 0 and 1.")
    if not (file.is_flat and file.is_bytes):
        yield warning(
            "data",
            f"{file.path}: stored as {file.layout}, {file.dtype}, which is read more slowly than "
            "flat uint8.",
            f"Pack it once: ml-core data pack {file.path.parent} FOLDER",
        )


def _not_as_recorded(folder: Path, splits: Sequence[str]) -> Iterator[Check]:
    """Yield the files whose size is not what dataset.json records, where there is one."""
    if not (folder / MANIFEST_NAME).is_file():
        return
    try:
        recorded = Manifest.load(folder / MANIFEST_NAME).files
    except DataError as problem:
        yield error("data", problem)
        return
    for path in _files(folder, splits):
        then = recorded.get(path.name)
        if path.is_file() and (then is None or then.size != path.stat().st_size):
            size = "nothing" if then is None else f"{then.size:,} bytes"
            yield error(
                "data",
                f"{path}: {path.stat().st_size:,} bytes, of which {MANIFEST_NAME} records {size}.",
                f"Copy it again, or record it: ml-core data manifest {folder}",
            )


def check_audited(
    folder: Path,
    splits: Sequence[str],
    *,
    audited_at: str,
    verdict: str,
    rows_then: Mapping[str, int],
    rows_now: Mapping[str, int],
) -> Check:
    """Return whether the data still seem to be those of the audit of `audited_at` (ISO 8601).

    By number of patches and by time of change: a training compares the bytes themselves.
    """
    again = f"Audit them again: ml-core audit {folder}"
    for split in splits:
        if split in rows_now and rows_then.get(split) != rows_now[split]:
            then = rows_then.get(split, 0)
            return warning(
                "audit",
                f"it saw {then:,} {split} patches, and there are {rows_now[split]:,}.",
                again,
            )
    when = datetime.fromisoformat(audited_at).timestamp() + CLOCK_TICK_S
    changed = [path.name for path in _files(folder, splits) if _changed_at(path) > when]
    if changed:
        told = f"{', '.join(changed)} changed after it, on {audited_at[:16].replace('T', ' ')} UTC"
        return warning("audit", f"{told}.", f"{again} (quick if the bytes are the same).")
    return ok("audit", f"{verdict}; no file has changed since.")


def check_findings(
    errors: Sequence[str], *, policy: str, mode: str, can_be_left_out: bool, page: Path
) -> list[Check]:
    """Return what `data.on_findings` makes of the `errors` that an audit found in what is used.

    `can_be_left_out`: whether each of them is about patches that a full audit lists.
    """
    if not errors:
        return []
    told = f"the audit found {len(errors)} errors ({page}), first: {errors[0]}"
    if policy == "ignore":
        return [
            warning("audit", f"{told} They are ignored (data.on_findings), as the report says.")
        ]
    if policy == "exclude" and can_be_left_out and mode == "full":
        return [ok("audit", f"{told} Its patches are left out (data.on_findings: exclude).")]
    if policy == "exclude" and can_be_left_out:
        told = "data.on_findings: exclude needs a list of all such patches, and the audit is quick."
        return [error("audit", told, "First a full one: ml-core audit DATA")]
    remedy = "Mend the data"
    if can_be_left_out:
        remedy += ", or train without these patches: --set data.on_findings=exclude"
    return [error("audit", told, f"Nothing would be trained. {remedy}.")]


def _files(folder: Path, splits: Sequence[str]) -> list[Path]:
    paths = [split_paths(folder, split) for split in splits]
    return [path for at in paths for path in (at.x, at.y)]


def _changed_at(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else 0.0
