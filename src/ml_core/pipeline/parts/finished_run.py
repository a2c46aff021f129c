"""A run that was trained to its end: what it gives, and whether this very job did it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ml_core.lease import Lineage, slurm_job
from ml_core.runs import RunDir, RunRecord


def is_over(record: RunRecord) -> bool:
    """Return whether nothing of a run is left to train."""
    return record.status in ("completed", "stopped_early", "pruned")


def result_of(run: RunDir, record: RunRecord, *, told_to_stop: bool = False) -> dict[str, Any]:
    """Return {"run", "status", "best", "findings", "told_to_stop"}, what training gives."""
    return {
        "run": str(run.path),
        "status": record.status,
        "best": record.best,
        "findings": [finding.message for finding in record.findings],
        "told_to_stop": told_to_stop,
    }


def is_of_this_job(run: RunDir, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the Slurm job of this process was the last to train in `run`."""
    job, _ = slurm_job(environment)
    newest = Lineage.read(run.lease_path).newest
    return job is not None and newest is not None and newest.job == job
