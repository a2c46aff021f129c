"""Say how a user's jobs are: why one waits, why one failed, what one used of what it asked for.

Reads squeue and sacct, the user's register of submissions and the ends of the jobs' logs; writes
nothing. Without Slurm, what was submitted from here is told by its logs.

    ml-core jobs
    ml-core jobs 1234
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_core.cluster.submission import remembered
from ml_core.errors import ClusterError
from ml_core.pipeline.job_list.collect import Collected, collect_jobs
from ml_core.pipeline.job_list.describe import describe
from ml_core.pipeline.job_list.known_job import KnownJob
from ml_core.pipeline.job_list.told import render_in_full, render_list

logger = logging.getLogger("ml_core.jobs")

OF_LATE = timedelta(days=1)
LOOK_BACK = timedelta(days=31)  # few jobs wait and run for longer: older submissions are not read


def jobs(ids: Sequence[str] = (), *, all_: bool = False) -> dict[str, Any]:
    """Return the records of this user's jobs, the newest last, and print them.

    Those are the jobs in the queue, and the submitted ones that ended within a day, or ever with
    `all_`. With `ids` it is these, in full, with the ends of their logs. Raises ClusterError for an
    id that nobody knows, and where there is no Slurm and nothing was submitted.
    """
    now = datetime.now(UTC)
    since = "" if ids or all_ else (now - LOOK_BACK).isoformat()
    found = collect_jobs(remembered(since), user=str(os.getuid()), ids=ids)
    listed = list(found.jobs) if ids or all_ else [job for job in found.jobs if _is_new(job, now)]
    _refuse_unknown(ids, listed)
    slurm_answers = found.no_slurm is None
    records = [describe(job, found.jobs, slurm_answers=slurm_answers) for job in listed]
    _say(records, found, in_full=bool(ids), of_late=not all_)
    if not ids:
        records = [{**record, "log_end": None} for record in records]
    return {"jobs": records, "slurm": slurm_answers, "accounts": found.no_accounts is None}


def _is_new(known: KnownJob, now: datetime) -> bool:
    """Return whether Slurm has it in the queue still, or it was heard of within a day."""
    heard = known.last_heard
    return known.job is not None or heard is None or now - heard.astimezone(UTC) < OF_LATE


def _refuse_unknown(ids: Sequence[str], listed: Sequence[KnownJob]) -> None:
    for job_id in ids:
        if not any(known.stands_for(job_id) for known in listed):
            raise ClusterError(
                f"nobody knows a job {job_id}: neither squeue nor sacct, and it was not submitted "
                "from here. Those that were: ml-core jobs --all"
            )


def _say(
    records: Sequence[dict[str, Any]], found: Collected, *, in_full: bool, of_late: bool
) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if found.no_slurm is not None:
        logger.warning("%s What follows is from the logs alone.", found.no_slurm)
    if not records:
        ended = "ended within a day; older ones: --all" if of_late else "was submitted from here"
        logger.info("No job of yours is in the queue, and none %s.", ended)
    elif in_full:
        logger.info("%s", "\n\n".join(render_in_full(record, width) for record in records))
    else:
        logger.info("%s", render_list(records, width))
        logger.info("One in full, with the end of its log: ml-core jobs JOB")
    if found.no_slurm is None and found.no_accounts is not None:
        logger.info("What jobs used is not told: %s.", found.no_accounts.rstrip("."))
