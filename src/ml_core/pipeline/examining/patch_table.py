"""What is known of each scored patch: the audit's table, or the same measured on the spot."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.audit.patch_rows import measure_rows
from ml_core.data.layout import split_paths
from ml_core.errors import DataError
from ml_core.log import shown
from ml_core.pipeline.parts.audit_place import audit_dir_of
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.pipeline.parts.splits import check_data, refuse_other_data, run_exclusions
from ml_core.runs import read_json

logger = logging.getLogger("ml_core.slice")

MEASURED_HERE = "measured here"


@dataclass(frozen=True)
class PatchTable:
    """Rows of one split, and the file they are from, or MEASURED_HERE."""

    rows: pd.DataFrame
    source: str


def patches_of(operating: OperatingRun, split: str, index: npt.NDArray[np.int64]) -> PatchTable:
    """Return rows of the patches table of `split`: at least those of `index`.

    They are from the audit of these very bytes, a full one if there is one; where no audit holds
    all of `index`, they are measured here, which knows less (see `measure_rows`). Raises DataError
    for files that are missing or cannot be read, RunError for others than those the run knows.
    """
    for quick in (False, True):
        folder = audit_dir_of(operating.config.data, quick=quick)
        rows = _of_audit(operating, folder, split)
        if rows is not None and np.isin(index, rows["index"]).all():
            return PatchTable(rows, str(folder.patches_path))
    return PatchTable(_measure(operating, split, index), MEASURED_HERE)


def shortcuts_of_audit(operating: OperatingRun, split: str) -> list[dict[str, Any]]:
    """Return how well simple properties predict the labels of `split`, as the run's audit has it.

    Empty where the run keeps no audit, or one that did not measure this.
    """
    if not operating.run.audit_path.is_file():
        return []
    try:
        audit = AuditRecord.load(AuditDir(operating.run.path))
    except DataError as error:
        logger.warning("shortcuts are left out: %s", error)
        return []
    found = [each for each in audit.findings if each.id == "shortcuts-measured"]
    return [row for each in found for row in each.facts["table"] if row["split"] == split]


def _of_audit(operating: OperatingRun, folder: AuditDir, split: str) -> pd.DataFrame | None:
    """Return the rows of `split`, or None where this is no audit of the bytes the run knows."""
    if not (folder.record_path.is_file() and folder.patches_path.is_file()):
        return None
    try:
        if AuditRecord.load(folder).digests.get(split) != _digests(operating, split):
            logger.info("%s is not of the %s split of this run", shown(folder.record_path), split)
            return None
        content = pa.BufferReader(folder.patches_path.read_bytes())  # see split_table
        table = pq.read_table(content, filters=[("split", "==", split)])
    except (DataError, OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s cannot be used: %s", shown(folder.patches_path), error)
        return None
    rows: pd.DataFrame = table.to_pandas()
    return rows


def _digests(operating: OperatingRun, split: str) -> tuple[str, str]:
    """Return the SHA-256 of the patches and of the labels of `split`, as the run knows them."""
    data = operating.record.data
    known = data[split] if split in data else read_json(operating.run.scores_path(split))["data"]
    return known["x_sha256"], known["y_sha256"]


def _measure(operating: OperatingRun, split: str, index: npt.NDArray[np.int64]) -> pd.DataFrame:
    config = operating.config
    exclude = run_exclusions(operating.run, operating.record)
    (check,) = check_data(config, (split,), exclude)
    if split in operating.record.data:
        refuse_other_data(operating.record, [check])
    logger.info(
        "no full audit of these bytes is stored, so %s patches of %s are measured; with one, "
        "audit flags and doubtful labels are known too: ml-core audit %s",
        f"{len(index):,}", split, shown(config.data.data_path),
    )  # fmt: skip
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    paths = split_paths(config.data.files_dir, split)
    return measure_rows(split, paths, np.sort(index), num_threads=num_threads)
