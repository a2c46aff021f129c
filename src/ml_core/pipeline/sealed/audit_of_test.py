"""What the audit that a run keeps says against a score on the test split."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.data.checks import SplitRecord
from ml_core.data.patch_file import Rows
from ml_core.errors import DataError
from ml_core.findings import Finding
from ml_core.log import shown
from ml_core.runs import RunDir

logger = logging.getLogger("ml_core.evaluate")


def check_test_audit(run: RunDir, test: SplitRecord, exclude: Mapping[str, Rows]) -> list[Finding]:
    """Return the audit's errors and warnings about test, leaks from train and valid among them.

    `exclude` are the rows that the run leaves out: a leak of which none was used is a fact only. A
    finding "test-not-audited" says where the audit is not of every one of these test patches.
    """
    audit = _audit_of(run, test)
    findings = []
    if audit is None or audit.mode != "full":
        message = (
            "The audit that this run keeps did not look at every patch of this test set: whether "
            "some of them are in train or valid too is not known."
        )
        action = f"Audit before training: ml-core audit {shown(Path(test.x_path).parent)}."
        findings.append(Finding("test-not-audited", "warning", message, action))
    return findings + [
        _mended(finding) if _is_left_out(finding, exclude) else finding
        for finding in (audit.findings if audit else ())
        if finding.severity != "info"
        and "test" in (finding.split, finding.facts.get("other_split"))
    ]


def _audit_of(run: RunDir, test: SplitRecord) -> AuditRecord | None:
    try:
        audit = AuditRecord.load(AuditDir(run.path))
    except DataError as error:
        logger.warning("%s", error)
        return None
    is_of_test = audit.digests.get("test") == (test.x_sha256, test.y_sha256)
    return audit if is_of_test else None


def _is_left_out(finding: Finding, exclude: Mapping[str, Rows]) -> bool:
    rows = {int(row) for row in exclude.get(finding.split, ())}
    return bool(finding.indices) and set(finding.indices) <= rows


def _mended(finding: Finding) -> Finding:
    message = f"{finding.message} These patches of {finding.split} were left out."
    return dataclasses.replace(finding, severity="info", message=message)
