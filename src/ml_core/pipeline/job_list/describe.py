"""A job as a record of plain values: what is printed, and what --json gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ml_core.cluster.slurm import Usage
from ml_core.pipeline.job_list.efficiency import advise, used_of_asked
from ml_core.pipeline.job_list.known_job import UNKNOWN, KnownJob
from ml_core.pipeline.job_list.log_end import last_lines
from ml_core.pipeline.job_list.reason import why

NUM_LINES = 15
OURS_WHEN_DONE = (0, 3)  # 3: it has run to its end, and found what needs a look


def describe(known: KnownJob, jobs: Sequence[KnownJob], *, slurm_answers: bool) -> dict[str, Any]:
    """Return everything that is told of `known`, one of `jobs`; what nobody knows is None."""
    usage = known.usage
    code = known.exit_code
    return {
        "id": known.id,
        "name": known.name,
        "verb": known.submission.verb if known.submission else None,
        "state": known.state,
        "is_over": known.has_ended or (known.state == UNKNOWN and slurm_answers),
        "did_well": known.state == "COMPLETED"
        or (code is not None and not code.signal and code.code in OURS_WHEN_DONE),
        "why": why(known, jobs, slurm_answers=slurm_answers),
        "go_on": known.go_on,
        "exit_code": None if code is None else dataclasses.asdict(code),
        "elapsed_s": known.elapsed_s,
        "limit_s": known.limit_s,
        "restarts": known.restarts,
        "partition": known.partition,
        "nodes": known.nodes,
        "submitted_at": _iso(known.submitted_at),
        "started": _iso(_started(known)),
        "ended": _iso(usage.ended if usage and known.has_ended else None),
        **_used(usage, known.limit_s),
        "command": known.submission.command if known.submission else None,
        "folder": str(known.submission.folder) if known.submission else None,
        "log": str(known.log_path) if known.log_path else None,
        "log_problem": known.log_end.problem,
        "log_end": last_lines(known.log_end.text, NUM_LINES),
    }


def _used(usage: Usage | None, limit_s: int | None) -> dict[str, Any]:
    """Return what it used where sacct says; nothing is known before it has ended."""
    if usage is None or not usage.has_ended:
        nothing = ("cpus", "cpu_efficiency", "max_rss_mb", "asked_mem_mb", "gpu_percent")
        return {**dict.fromkeys(nothing), "gpus": {}, "used": "", "advice": []}
    return {
        "cpus": usage.cpus,
        "cpu_efficiency": usage.cpu_efficiency,
        "max_rss_mb": usage.max_rss_mb,
        "asked_mem_mb": usage.asked_mem_mb,
        "gpus": usage.gpus,
        "gpu_percent": usage.gpu_percent,
        "used": used_of_asked(usage),
        "advice": advise(usage, limit_s),
    }


def _started(known: KnownJob) -> datetime | None:
    """Return when its last start was; of a job that waits, squeue tells when it may be."""
    if known.job is not None and not known.job.is_waiting:
        return known.job.started
    return known.usage.started if known.usage is not None and known.job is None else None


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
