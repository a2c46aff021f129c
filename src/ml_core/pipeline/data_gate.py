"""What an audit's errors do to a training: refuse it, leave patches out, or be written down.

Reads the audit of the data's exact bytes; where there is none, makes a quick one and keeps it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.config import Config
from ml_core.data.checks import hash_file, hash_splits
from ml_core.data.exclusions import load_exclusions
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile, Rows
from ml_core.data.survey import survey_patches
from ml_core.errors import DataError
from ml_core.findings import Finding
from ml_core.log import shown
from ml_core.pipeline.audit import audit_data, audit_dir_of

logger = logging.getLogger("ml_core.data")

_MOST_SHOWN = 8


@dataclass(frozen=True)
class Gate:
    """What a training may use: `exclude` rows of each split, and what its record says of it."""

    hashes: Mapping[str, tuple[str, str]]  # SHA-256 of each split's patches and labels
    record: Mapping[str, Any]
    exclude: Mapping[str, Rows] = dataclasses.field(default_factory=dict)
    exclusions_path: Path | None = None


def pass_gate(config: Config, splits: Sequence[str]) -> Gate:
    """Return what `data.on_findings` lets through; raises DataError when that is nothing.

    Errors of splits that are not used do not count, nor of patches that `data.filter_data` drops.
    """
    hashes = hash_splits(config.data.data_path, splits)
    policy = config.data.on_findings
    folder, audit = _find_audit(config, hashes)
    errors = [
        finding
        for finding in audit.findings
        if finding.severity == "error"
        and finding.split in ("", *splits)
        and not (config.data.filter_data and _is_filtered_out(finding, config.data.data_path))
    ]
    record: dict[str, Any] = {
        "path": str(folder.path),
        "sha256": hash_file(folder.record_path) if folder.record_path.is_file() else None,
        "mode": audit.mode,
        "verdict": audit.verdict,
        "policy": policy,
    }
    logger.info("audit  %s, %s; kept in %s", audit.mode, audit.verdict, shown(folder.path))
    if policy == "exclude":
        return _exclude(hashes, record, folder, audit, errors)
    if errors and policy == "refuse":
        raise DataError(_refusal(config, folder, audit, errors))
    if errors:
        logger.warning("trained in spite of %d errors the audit found", len(errors))
        record["ignored"] = [finding.message for finding in errors]
    return Gate(hashes, record)


def _is_filtered_out(finding: Finding, data_path: Path) -> bool:
    """Whether `data.filter_data` drops every patch the finding names, so that none is used."""
    if not (finding.exclude and finding.indices):
        return False
    file = PatchFile(split_paths(data_path, finding.split).x)
    return not survey_patches(file, np.array(finding.indices)).is_informative.any()


def _find_audit(
    config: Config, hashes: Mapping[str, tuple[str, str]]
) -> tuple[AuditDir, AuditRecord]:
    """Return the full audit of these bytes, or a quick one; made now if there is neither."""
    folders = [audit_dir_of(config.data, quick=quick) for quick in (False, True)]
    for folder in folders:
        if folder.record_path.is_file():
            record = AuditRecord.load(folder)
            if record.is_of(hashes):
                return folder, record
            logger.info("the audit in %s is of other bytes", shown(folder.path))
    folder = folders[-1]
    logger.info("no audit of these bytes is stored; a quick one is made first")
    return folder, audit_data(
        config.data.data_path,
        folder,
        quick=True,
        command=f"ml-core audit --quick {config.data.data_path}",
        sha256=hashes,
        in_passing=True,
    )


def _exclude(
    hashes: Mapping[str, tuple[str, str]],
    record: Mapping[str, Any],
    folder: AuditDir,
    audit: AuditRecord,
    errors: Sequence[Finding],
) -> Gate:
    if audit.mode != "full":
        raise DataError(
            "data.on_findings: exclude needs to know every patch to leave out, and a quick audit "
            f"looks at a sample. First: ml-core audit {shown(Path(audit.data_path))}"
        )
    rest = [finding for finding in errors if not finding.exclude]
    if rest:
        raise DataError(
            "leaving patches out does not mend what the audit found:\n"
            f"{_listed(rest)}\nSee {shown(folder.page_path)}. Mend it, or train in spite of it: "
            "data.on_findings: ignore."
        )
    exclude = load_exclusions(folder.exclusions_path)
    digest = hash_file(folder.exclusions_path)
    if digest != audit.exclusions_sha256:
        logger.warning(
            "%s was edited since the audit; it is used as it is", shown(folder.exclusions_path)
        )
    return Gate(
        hashes,
        {**record, "exclusions_sha256": digest},
        exclude,
        folder.exclusions_path,
    )


def _refusal(
    config: Config, folder: AuditDir, audit: AuditRecord, errors: Sequence[Finding]
) -> str:
    data_path = shown(config.data.data_path)
    seen = f"Look at {shown(folder.page_path)}. " if folder.page_path.is_file() else ""
    if audit.mode == "quick":
        todo = (
            f"A quick audit looks at a sample; see all of it with: ml-core audit "
            f"{data_path}. Then train without the patches it lists (data.on_findings: exclude) or "
            "in spite of all (ignore)."
        )
    else:
        todo = (
            "Mend the data, or train without the patches listed in exclusions.csv "
            "(--set data.on_findings=exclude), or in spite of all (ignore; the report says so)."
        )
    number = f"{len(errors)} error{'' if len(errors) == 1 else 's'}"
    return f"nothing is trained: the audit found {number}.\n{_listed(errors)}\n{seen}{todo}"


def _listed(findings: Sequence[Finding]) -> str:
    lines = [f"  {finding.message}" for finding in findings[:_MOST_SHOWN]]
    if len(findings) > _MOST_SHOWN:
        lines.append(f"  and {len(findings) - _MOST_SHOWN} more")
    return "\n".join(lines)
