"""From the files of a folder to findings: open, identify, measure, check."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.checks.identity import official_split
from ml_core.audit.files import worst_first
from ml_core.audit.measure import Columns, collect, measure_split, num_pieces
from ml_core.audit.measures.block import Measure
from ml_core.audit.measures.features import fit_features
from ml_core.audit.measures.fingerprint import measure_fingerprint
from ml_core.audit.measures.pixel_stats import measure_pixels
from ml_core.audit.measures.trigger_stats import measure_trigger
from ml_core.audit.reader import PatchReader
from ml_core.audit.run_checks import run_checks
from ml_core.audit.sources import Source, find_splits, open_sources, unreadable
from ml_core.audit.table import add_flags, build_table, label_table
from ml_core.data.checks import hash_file
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import Rows, evenly_spaced
from ml_core.data.versions.official import NUM_ROWS
from ml_core.errors import DataError
from ml_core.findings import Finding
from ml_core.log import progress

log = logging.getLogger("ml_core.audit")

# Of each split; a defect of one patch in a thousand is then missed once in twenty audits.
QUICK_PATCHES = 3000
_FIT_PATCHES = 3000  # that the learned features are fitted to
_ASIDE = ("descriptors", "features")  # measured rows of values, kept beside the table


@dataclass(frozen=True)
class Examination:
    """What one look at a data set gave; `patches` is the table with flags."""

    findings: Sequence[Finding]
    not_checked: Sequence[Mapping[str, str]]
    splits: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, tuple[str | None, str | None]]  # SHA-256 of x and y of every split
    patches: pd.DataFrame
    reader: PatchReader


def examine(
    data_path: str | Path,
    *,
    quick: bool,
    num_threads: int,
    sha256: Mapping[str, tuple[str, str]] | None = None,
    seed: int = 0,
) -> Examination:
    """Return what is found in the PCam files of a folder, every patch read once.

    With `quick`, at most 3,000 evenly spaced patches of each split, without the checks that need
    all (near duplicates, label errors) and without hashing the files: `sha256` gives the digests of
    a split's two files where they are known. Files that cannot be read are findings. Raises
    DataError for a folder that holds no split that can be read.
    """
    sources, findings = open_sources(data_path)
    with ThreadPoolExecutor(1) as beside:
        digests = beside.submit(_digest_files, Path(data_path), sources, sha256 or {}, quick)
        measures: list[Measure] = [measure_pixels, measure_trigger]
        if not quick:
            measures += [measure_fingerprint]
            measures += _learned_measure(sources, seed)
        parts: list[tuple[pd.DataFrame, Columns]] = []
        readable: list[Source] = []
        for source in sources:
            try:
                parts.append(_measure(source, measures, quick, num_threads))
                readable.append(source)
            except DataError as error:
                findings.append(unreadable(source.split, error))
        identity = digests.result()
    if not readable:
        reasons = "\n  ".join(finding.message for finding in findings)
        raise DataError(
            f"{data_path}: no split can be read, so there is nothing to audit.\n  {reasons}"
        )
    patches = build_table(parts)
    files = {source.split: source.file for source in readable}
    reader = PatchReader(files, patches)
    started = time.monotonic()
    checked = run_checks(
        patches,
        files=files,
        md5={split: identity[split].md5 for split in files if identity[split].is_md5_known},
        labels=pd.concat(
            [label_table(source, np.arange(len(source.file))) for source in readable],
            ignore_index=True,
        ),
        aside={name: _stacked(parts, name) for name in _ASIDE if name in parts[0][1]},
        quick=quick,
    )
    log.info("checked in %.1f s", time.monotonic() - started)
    findings = worst_first([*findings, *checked.findings])
    patches = add_flags(patches.assign(**checked.columns), findings)
    return Examination(
        findings,
        checked.not_checked,
        {s.split: _describe(s, identity[s.split], patches, findings) for s in readable},
        {split: (found.x_sha256, found.y_sha256) for split, found in identity.items()},
        patches,
        reader,
    )


def _measure(
    source: Source, measures: Sequence[Measure], quick: bool, num_threads: int
) -> tuple[pd.DataFrame, Columns]:
    num_rows = len(source.file)
    rows: Rows = evenly_spaced(num_rows, QUICK_PATCHES if quick else num_rows)
    started = time.monotonic()
    pieces = measure_split(source.file, rows, measures, num_threads=num_threads)
    total = num_pieces(source.file, rows)
    columns = collect(
        progress(pieces, total=total, description=source.split, unit="blocks"), len(rows)
    )
    of_all = "" if len(rows) == num_rows else f" of {num_rows:,}"
    log.info(
        "%-5s  %s%s patches measured in %.1f s",
        source.split, f"{len(rows):,}", of_all, time.monotonic() - started,
    )  # fmt: skip
    return label_table(source, rows), columns


def _learned_measure(sources: Sequence[Source], seed: int) -> list[Measure]:
    """Fit the small features to patches of the first split that can be read; none if none can."""
    for source in sources:
        sample = evenly_spaced(len(source.file), _FIT_PATCHES)
        frame = label_table(source, sample)
        try:
            levels = PatchReader({source.split: source.file}, frame).at(source.split, sample)
        except DataError:
            continue  # the pass over the file will say so
        return [fit_features(levels, seed).measure]
    return []


@dataclass(frozen=True)
class Digests:
    """What identifies a split; None for what was not computed or cannot be read."""

    x_sha256: str | None
    y_sha256: str | None
    md5: str | None  # of patches that by their number could be official
    is_md5_known: bool  # None then says that they are not


def _digest_files(
    folder: Path, sources: Sequence[Source], known: Mapping[str, tuple[str, str]], quick: bool
) -> dict[str, Digests]:
    """Return the digests of every split in the folder; with `quick` those in `known` only."""
    num_rows = {source.split: len(source.file) for source in sources}
    digests = {}
    for split in find_splits(folder):
        paths = split_paths(folder, split)
        wanted = not quick or split in known
        could_be_official = num_rows.get(split) in NUM_ROWS.values()
        sha256 = known.get(split) or (
            (_digest(paths.x), _digest(paths.y)) if wanted else (None, None)
        )
        md5 = _digest(paths.x, "md5") if wanted and could_be_official else None
        digests[split] = Digests(*sha256, md5, is_md5_known=wanted or not could_be_official)
    return digests


def _digest(path: Path, algorithm: str = "sha256") -> str | None:
    try:
        return hash_file(path, algorithm)
    except OSError:
        return None  # there is a finding that it cannot be read


def _stacked(parts: Sequence[tuple[pd.DataFrame, Columns]], name: str) -> npt.NDArray[np.float32]:
    """Take the rows of values out of the parts, so that they are not held twice."""
    return np.concatenate([columns.pop(name) for _, columns in parts])


def _describe(
    source: Source,
    digests: Digests,
    patches: pd.DataFrame,
    findings: Sequence[Finding],
) -> dict[str, Any]:
    here = patches[patches["split"] == source.split]
    excluded: set[int] = set()
    for finding in findings:
        if finding.split == source.split and finding.exclude:
            excluded.update(finding.indices)
    file = source.file
    return {
        "x_path": str(source.paths.x),
        "y_path": str(source.paths.y),
        "x_sha256": digests.x_sha256,
        "y_sha256": digests.y_sha256,
        "num_rows": len(file),
        "num_examined": len(here),
        "num_positive": int((source.labels == 1).sum()),
        "num_unlabelled": int((source.labels < 0).sum()),
        "num_flagged": int((here["flags"] != "").sum()),
        "num_excluded": len(excluded),
        "shape": list(file.shape[1:]),
        "dtype": str(file.dtype),
        "layout": file.layout,
        "value_range": str(file.value_range),
        "num_bytes": source.paths.x.stat().st_size if source.paths.x.exists() else 0,
        "official": official_split(digests.md5),
        "is_official_known": digests.is_md5_known,
    }
