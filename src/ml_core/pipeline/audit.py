"""Look at every patch of a data set and say what is wrong with it.

Reads the splits of a folder, or of the folder a config names; writes patches.parquet, audit.json,
exclusions.csv, figures/ and audit.html.

    ml-core audit data/pcam
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import ml_core
from ml_core.audit.examine import Examination, examine
from ml_core.audit.files import AuditDir, AuditRecord, save_exclusions
from ml_core.audit.page import render_audit
from ml_core.audit.sources import find_splits
from ml_core.config import Config, DataConfig
from ml_core.durable import written_aside
from ml_core.errors import DataError
from ml_core.findings import SEVERITIES, Severity
from ml_core.log import shown
from ml_core.pipeline.parts.audit_place import audit_dir_of
from ml_core.runs import utc_now

logger = logging.getLogger("ml_core.audit")

_IN_JSON = ("id", "severity", "split", "count", "message")
_MARKS = {"error": "ERROR  ", "warning": "warning"}


def audit(
    path: Path,
    out: Path | None = None,
    *,
    fail_on: Severity | Literal["nothing"] = "error",
    quick: bool = False,
    overrides: Iterable[str] = (),
    command: str = "",
) -> dict[str, Any]:
    """Return {"audit", "verdict", "findings", "failed"}; "failed" says whether one is too severe.

    `path` is a folder of PCam files or a config; `out` is a folder, by default `audit` in the
    data's own. Raises DataError when nothing can be read or the results cannot be written.
    """
    data, folder = _places(path, out, quick, overrides)
    record, _ = audit_data(
        data.data_path, folder, quick=quick, command=command, files_dir=data.files_dir
    )
    for finding in record.findings:
        if finding.severity != "info":
            logger.info("%s  %s", _MARKS[finding.severity], finding.message)
    logger.info("%s: %s", record.verdict, shown(folder.page_path))
    failing = () if fail_on == "nothing" else SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    return {
        "audit": str(folder.path),
        "page": str(folder.page_path),
        "mode": record.mode,
        "verdict": record.verdict,
        "findings": [{key: getattr(f, key) for key in _IN_JSON} for f in record.findings],
        "failed": any(finding.severity in failing for finding in record.findings),
    }


def audit_data(
    data_path: Path,
    folder: AuditDir,
    *,
    quick: bool,
    command: str,
    files_dir: Path | None = None,
    sha256: Mapping[str, tuple[str, str]] | None = None,
    in_passing: bool = False,
) -> tuple[AuditRecord, bool]:
    """Examine the data and write the audit's files; return the record, and whether it is kept.

    `files_dir`: a copy to read in place of `data_path`. `sha256`: see `examine`. `in_passing`, when
    training needs to know: the page is drawn only where there are errors to look at, and a folder
    that cannot be written is a warning, no DataError.
    """
    if not in_passing:
        _check_writable(folder)
    started = time.monotonic()
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    found = examine(files_dir or data_path, quick=quick, num_threads=num_threads, sha256=sha256)
    record = AuditRecord(
        mode="quick" if quick else "full",
        data_path=str(data_path),
        created_at=utc_now(),
        ml_core=ml_core.__version__,
        command=command,
        duration_s=round(time.monotonic() - started, 1),
        num_threads=num_threads,
        splits=_in_place(found.splits, data_path),
        digests=found.digests,
        findings=found.findings,
        not_checked=found.not_checked,
    )
    try:
        page = not in_passing or record.num("error") > 0
        return _write(folder, record, found, page=page), True
    except (OSError, DataError) as error:
        message = (
            f"the audit cannot be kept in {folder.path}: {error}. Name a folder you may write to: "
            "ml-core audit --out DIR, or data.audit_dir in the config."
        )
        if not in_passing:
            raise DataError(message) from error
        logger.warning("%s", message)
        return record, False


def _in_place(
    splits: Mapping[str, Mapping[str, Any]], data_path: Path
) -> dict[str, dict[str, Any]]:
    """Return what was found of each split, its files those of `data_path`, which outlive a copy."""
    return {
        split: {
            key: str(data_path / Path(value).name) if key in ("x_path", "y_path") else value
            for key, value in found.items()
        }
        for split, found in splits.items()
    }


def _write(folder: AuditDir, record: AuditRecord, found: Examination, *, page: bool) -> AuditRecord:
    """Write audit.json last: where it is there, the rest is, and of the same audit."""
    folder.record_path.unlink(missing_ok=True)
    folder.page_path.unlink(missing_ok=True)
    shutil.rmtree(folder.figures_dir, ignore_errors=True)
    record = dataclasses.replace(record, exclusions_sha256=save_exclusions(folder, found.findings))
    with written_aside(folder.patches_path) as aside:
        found.patches.to_parquet(aside, index=False)
    if page:
        render_audit(
            dataclasses.asdict(record),
            found.patches,
            found.reader.at,
            folder.page_path,
            folder.figures_dir,
        )
    record.save(folder)
    return record


def _places(
    path: Path, out: Path | None, quick: bool, overrides: Iterable[str]
) -> tuple[DataConfig, AuditDir]:
    """Return where the data are, and the audit's folder."""
    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        data = Config.load(path, overrides).data
    else:
        if list(overrides):
            raise DataError("--set changes a config; here a folder of data is given.")
        data = DataConfig(data_path=path)
    find_splits(data.files_dir)  # before a folder is made in a wrong place
    folder = AuditDir(out) if out else audit_dir_of(data, quick=quick)
    if quick and folder.record_path.is_file() and AuditRecord.load(folder).mode == "full":
        raise DataError(
            f"{folder.path} holds a full audit, which a quick one would replace. Name another "
            "folder: --out DIR."
        )
    return data, folder


def _check_writable(folder: AuditDir) -> None:
    """Refuse before minutes of work, not after them."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.path):
            pass
    except OSError as error:
        raise DataError(
            f"cannot write in {folder.path}: {error.strerror or error}. "
            "Name another folder: --out DIR, or data.audit_dir in the config."
        ) from error
