"""What an audit's errors do to a training: refuse it, leave patches out, or be written down.

Reads the audit of the data's exact bytes; where there is none, makes a quick one and keeps it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.config import Config
from ml_core.data.checks import digest_splits, sha256_of
from ml_core.data.exclusions import parse_exclusions, read_exclusions
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile, Rows
from ml_core.data.survey import survey_patches
from ml_core.data.versions.digests import FileDigest
from ml_core.data.versions.recorded import check_recorded
from ml_core.errors import DataError
from ml_core.findings import Finding
from ml_core.log import shown
from ml_core.pipeline.parts.audit_place import audit_dir_of
from ml_core.pipeline.parts.local_copy import check_copy
from ml_core.reproducibility import data_digests
from ml_core.runs import RunDir, write_json, write_text

logger = logging.getLogger("ml_core.data")

_MOST_SHOWN = 8


@dataclass(frozen=True)
class Gate:
    """What a training may use: `exclude` rows of each split, and what its record says of it."""

    hashes: Mapping[str, tuple[str, str]]  # SHA-256 of each split's patches and labels
    record: Mapping[str, Any]
    audit: str  # audit.json, as it was read
    exclude: Mapping[str, Rows] = field(default_factory=dict)
    exclusions: str | None = None  # exclusions.csv, as it was read
    digests: Mapping[str, Any] = field(default_factory=dict)  # data-digests.json

    def save(self, run: RunDir) -> None:
        """Give the run its own copy of what is known of its data, whatever becomes of that."""
        write_text(run.audit_path, self.audit)
        if self.digests:
            write_json(run.data_digests_path, self.digests)
        if self.exclusions is not None:
            write_text(run.exclusions_path, self.exclusions)


def pass_gate(config: Config, splits: Sequence[str]) -> Gate:
    """Return what `data.on_findings` lets through; raises DataError when that is nothing.

    Errors of splits that are not used do not count, nor of patches that `data.filter_data` drops.
    """
    check_copy(config.data, splits)  # before an audit is made of what is no copy
    digests = digest_splits(config.data.files_dir, splits)
    hashes = sha256_of(digests)
    files: dict[str, tuple[Path, FileDigest]] = {}
    for split, (x, y) in digests.items():
        paths = split_paths(config.data.files_dir, split)
        files |= {f"{split}_x": (paths.x, x), f"{split}_y": (paths.y, y)}
    check_recorded(files.values())
    policy = config.data.on_findings
    folder, text = _find_audit(config, hashes)
    audit = AuditRecord.parse(text, "the audit")
    record: dict[str, Any] = {
        "path": str(folder.path) if folder else None,
        "sha256": _sha256(text),
        "mode": audit.mode,
        "verdict": audit.verdict,
        "policy": policy,
        "not_checked": [each["check"] for each in audit.not_checked],
    }
    _say(folder, audit)
    errors = [
        finding
        for finding in audit.findings
        if finding.severity == "error"
        and finding.split in ("", *splits)
        and not (config.data.filter_data and _is_filtered_out(finding, config.data.files_dir))
    ]
    if errors and policy == "refuse":
        raise DataError(_refusal(config, folder, audit, errors))
    if policy == "exclude":
        exclusions = _read_list(config, folder, audit, errors)
        exclude = parse_exclusions(exclusions, str(folder and folder.exclusions_path))
        record["exclusions_sha256"] = _sha256(exclusions)
        record["exclusions_edited"] = record["exclusions_sha256"] != audit.exclusions_sha256
        errors = [each for each in errors if not set(each.indices) <= set(exclude[each.split])]
        if record["exclusions_edited"]:
            logger.warning("exclusions.csv was edited since the audit; it is used as it is")
    else:
        exclude, exclusions = {}, None
    if errors:
        record["ignored"] = [finding.message for finding in errors]
        logger.warning("trained in spite of what the audit found:\n%s", _listed(errors))
    return Gate(hashes, record, text, exclude, exclusions, data_digests(files))


def _is_filtered_out(finding: Finding, files_dir: Path) -> bool:
    """Whether `data.filter_data` drops every patch the finding names, so that none is used."""
    if not (finding.exclude and finding.indices):
        return False
    file = PatchFile(split_paths(files_dir, finding.split).x)
    return not survey_patches(file, np.array(finding.indices)).is_informative.any()


def _find_audit(
    config: Config, hashes: Mapping[str, tuple[str, str]]
) -> tuple[AuditDir | None, str]:
    """Return the full audit of these bytes, or a quick one, made now if there is neither.

    As its folder and its JSON; the folder is None where one was made and cannot be kept.
    """
    for quick in (False, True):
        folder = audit_dir_of(config.data, quick=quick)
        try:
            if folder.record_path.is_file():
                text = folder.record_path.read_text(encoding="utf-8")
                audit = AuditRecord.parse(text, str(folder.record_path))
                if audit.is_of(hashes):
                    return folder, text
                _refuse_unaudited_copy(config, folder, audit, hashes)
                logger.info("%s is not of these bytes", shown(folder.record_path))
        except _OtherCopyError:
            raise
        except (DataError, OSError, UnicodeDecodeError) as error:
            logger.warning("%s It is not used.", error)
    logger.info("no audit of these bytes is stored; a quick one is made first")
    # its checks and plots take more than a second to load, and as a rule there is an audit
    from ml_core.pipeline.audit import audit_data

    folder = audit_dir_of(config.data, quick=True)
    record, is_kept = audit_data(
        config.data.data_path,
        folder,
        quick=True,
        command=f"ml-core audit --quick {config.data.data_path}",
        files_dir=config.data.files_dir,
        sha256=hashes,
        in_passing=True,
    )
    return folder if is_kept else None, record.to_json()


class _OtherCopyError(DataError):
    """The copy is of other data than those that were audited."""


def _refuse_unaudited_copy(
    config: Config, folder: AuditDir, audit: AuditRecord, hashes: Mapping[str, tuple[str, str]]
) -> None:
    """Raise where it is a local copy that has other bytes than the audited ones."""
    data = config.data
    is_other = any(
        then not in (now, None)  # a quick audit may not know
        for split, found in hashes.items()
        for then, now in zip(audit.digests.get(split, (None, None)), found, strict=True)
    )
    if is_other and data.files_dir != data.data_path:
        raise _OtherCopyError(
            f"{data.files_dir} is not of the bytes that {shown(folder.record_path)} is of. Copy "
            f"it anew (ml-core data stage {shown(data.data_path)} DIR), leave data.local_copy "
            f"away, or, where the data have changed since, first: {_full_audit(config)}"
        )


def _say(folder: AuditDir | None, audit: AuditRecord) -> None:
    kept = f"; kept in {shown(folder.path)}" if folder else ""
    logger.info("audit  %s, %s%s", audit.mode, audit.verdict, kept)
    if audit.mode == "quick":
        missing = ", ".join(each["check"] for each in audit.not_checked)
        logger.info("not looked at by a quick audit: %s", missing)


def _read_list(
    config: Config, folder: AuditDir | None, audit: AuditRecord, errors: Sequence[Finding]
) -> str:
    if audit.mode != "full" or folder is None:
        raise DataError(
            "data.on_findings: exclude needs to know every patch to leave out, and a quick audit "
            f"looks at a sample. First: {_full_audit(config)}"
        )
    rest = [finding for finding in errors if not finding.exclude]
    if rest:
        raise DataError(
            "leaving patches out does not mend what the audit found:\n"
            f"{_listed(rest)}\nSee {shown(folder.page_path)}. Mend it, or train in spite of it: "
            "data.on_findings: ignore."
        )
    return read_exclusions(folder.exclusions_path)


def _refusal(
    config: Config, folder: AuditDir | None, audit: AuditRecord, errors: Sequence[Finding]
) -> str:
    page = folder.page_path if folder else None
    seen = f"Look at {shown(page)}. " if page and page.is_file() else ""
    can_be_left_out = all(finding.exclude for finding in errors)
    in_spite = "train in spite of it (--set data.on_findings=ignore; the report says so)."
    if not can_be_left_out:
        todo = f"Mend the data, or {in_spite}"
    elif audit.mode == "quick":
        todo = (
            f"A quick audit looks at a sample; list every such patch with: {_full_audit(config)}. "
            f"Then train without them (--set data.on_findings=exclude), or {in_spite}"
        )
    else:
        todo = (
            "Mend the data, or train without the patches listed in exclusions.csv "
            f"(--set data.on_findings=exclude), or {in_spite}"
        )
    number = f"{len(errors)} error{'' if len(errors) == 1 else 's'}"
    return (
        f"{shown(config.data.data_path)}: nothing is trained, the audit found {number}.\n"
        f"{_listed(errors)}\n{seen}{todo}"
    )


def _full_audit(config: Config) -> str:
    out = f" --out {shown(config.data.audit_dir)}" if config.data.audit_dir else ""
    return f"ml-core audit {shown(config.data.data_path)}{out}"


def _listed(findings: Sequence[Finding]) -> str:
    lines = [f"  {finding.message}" for finding in findings[:_MOST_SHOWN]]
    if len(findings) > _MOST_SHOWN:
        lines.append(f"  and {len(findings) - _MOST_SHOWN} more")
    return "\n".join(lines)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
