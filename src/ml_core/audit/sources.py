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
from ml_core.findings import Finding

UNKNOWN_LABEL = -1


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
    if not folder.is_dir():
        kind = "is a file; give the folder it is in" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {kind}. An audit needs a folder of PCam files.")
    sources: list[Source] = []
    findings: list[Finding] = []
    names = [split for split in SPLITS if _has_files(split_paths(folder, split))]
    if not names:
        raise DataError(
            f"{folder} holds no split: there is no {split_paths('', 'train').x} or its like "
            "for valid and test. Other files are made into such: ml-core data pack."
        )
    for split in names:
        source, wrong = _open_source(split, split_paths(folder, split))
        findings += wrong
        sources += [source] if source is not None else []
    return _of_one_size(sources, findings)


def _has_files(paths: SplitPaths) -> bool:
    return paths.x.exists() or paths.y.exists()


def _open_source(split: str, paths: SplitPaths) -> tuple[Source | None, list[Finding]]:
    findings = []
    try:
        file = PatchFile(paths.x)
    except ValueRangeError as error:
        return None, [_error("value-range", split, error)]
    except DataError as error:
        return None, [_error("unreadable", split, error)]
    try:
        labels = load_labels(paths.y)
        check_same_length(file, labels, paths.y)
    except DataError as error:
        findings.append(_error("labels-unusable", split, error))
        labels = np.full(len(file), UNKNOWN_LABEL, np.int64)
    meta = None
    if paths.meta.exists():
        try:
            meta = load_meta(paths.meta, len(file))
        except DataError as error:
            findings.append(_error("meta-unusable", split, error))
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
    return _error("unreadable", split, error)


def _error(id_: str, split: str, error: DataError) -> Finding:
    return Finding(id_, "error", f"{split}: {error}", "Nothing of it was examined.", split=split)
