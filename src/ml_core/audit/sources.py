"""The splits of a folder, opened; what cannot be used is a finding, and the others go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml_core.audit.meta import load_meta
from ml_core.data.layout import (
    SPLITS,
    Labels,
    SplitPaths,
    check_same_length,
    load_labels,
    split_paths,
)
from ml_core.data.patch_file import PatchFile
from ml_core.data.value_range import ValueRangeError
from ml_core.errors import DataError
from ml_core.findings import Finding, Severity

UNKNOWN_LABEL = -1
SMALLEST_SIDE = 32  # pixels: the centre that a label is about

# What cannot be used of a split, how bad that is, and what to do.
_ACTIONS: dict[str, tuple[Severity, str]] = {
    "unreadable": ("error", "Get the file again; nothing of this split was examined."),
    "value-range": ("error", "Pack it as uint8; nothing of this split was examined."),
    "patch-too-small": ("error", "Cut larger patches; nothing of this split was examined."),
    "labels-unusable": ("error", "Get the label file again; the patches were examined without."),
    "meta-unusable": (
        "warning",
        "Mend it: until then slides and places of this split are unknown.",
    ),
}


@dataclass(frozen=True)
class Source:
    """One split that can be read. Without usable labels all are UNKNOWN_LABEL."""

    split: str
    paths: SplitPaths
    file: PatchFile
    labels: Labels  # (N,)
    meta: pd.DataFrame | None  # one row per patch; see load_meta


def open_sources(data_path: str | Path) -> tuple[list[Source], list[Finding]]:
    """Return the splits of a PCam folder that can be read, and an error for each that cannot.

    A split without any file is left out. Raises DataError when the folder holds no split at all.
    """
    folder = Path(data_path)
    sources: list[Source] = []
    findings: list[Finding] = []
    for split in find_splits(folder):
        source, wrong = open_source(split, split_paths(folder, split))
        findings += wrong
        sources += [source] if source is not None else []
    return _of_one_size(sources, findings)


def find_splits(folder: Path) -> list[str]:
    """Return the splits of which there is a file in the folder; raises DataError without any."""
    try:
        if not folder.is_dir():
            kind = "is a file; give the folder it is in" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {kind}. An audit needs a folder of PCam files, or a config.")
        names = {path.name for path in folder.iterdir()}
        (folder / "x").exists()  # listing is allowed where opening is not
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error
    found = [s for s in SPLITS if {split_paths("", s).x.name, split_paths("", s).y.name} & names]
    if not found:
        raise DataError(
            f"{folder} holds no split: there is no {split_paths('', 'train').x} or its like "
            "for valid and test. Other files are made into such: ml-core data pack."
        )
    return found


def open_source(split: str, paths: SplitPaths) -> tuple[Source | None, list[Finding]]:
    """Return one split, or None, and what of it cannot be used."""
    findings = []
    try:
        file = PatchFile(paths.x)
    except ValueRangeError as error:
        return None, [_finding("value-range", split, str(error))]
    except DataError as error:
        return None, [unreadable(split, error)]
    height, width = file.shape[1:3]
    if min(height, width) < SMALLEST_SIDE:
        message = f"{paths.x}: patches of {height} x {width} pixels; at least 32 x 32 are needed."
        return None, [_finding("patch-too-small", split, message)]
    try:
        labels = load_labels(paths.y)
        check_same_length(file, labels, paths.y)
    except DataError as error:
        findings.append(_finding("labels-unusable", split, str(error)))
        labels = np.full(len(file), UNKNOWN_LABEL, np.int64)
    meta = None
    if paths.meta.exists():
        try:
            meta = load_meta(paths.meta, len(file))
        except DataError as error:
            findings.append(_finding("meta-unusable", split, str(error)))
    return Source(split, paths, file, labels, meta), findings


def _of_one_size(
    sources: Sequence[Source], findings: list[Finding]
) -> tuple[list[Source], list[Finding]]:
    """Leave out splits whose patches have another size than those of the first."""
    kept = []
    for source in sources:
        height, width = source.file.shape[1:3]
        first = sources[0].file.shape[1:3]
        if (height, width) == first:
            kept.append(source)
            continue
        findings.append(
            Finding(
                "patch-size-differs",
                "error",
                f"{source.split}: patches of {height} x {width} pixels, where {sources[0].split} "
                f"has {first[0]} x {first[1]}; not examined further.",
                "Cut all splits to one size at one magnification.",
                split=source.split,
            )
        )
    return kept, findings


def unreadable(split: str, error: DataError) -> Finding:
    """Return the finding that a split cannot be read, or not to its end."""
    return _finding("unreadable", split, str(error))


def _finding(id_: str, split: str, message: str) -> Finding:
    severity, action = _ACTIONS[id_]
    return Finding(id_, severity, f"{split}: {message}", action, split=split)
