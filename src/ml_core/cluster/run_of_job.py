"""Which run a job has begun: what it goes on with when the scheduler starts it again.

A batch script asks on its node, before it starts anything:

    python -m ml_core.cluster.run_of_job runs/pcam_cnn 123
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ml_core.errors import RunError
from ml_core.lease import Lease, Lineage, slurm_job
from ml_core.runs import RunDir, RunRecord, utc_now


def run_of_job(folder: Path, job: str) -> Path | None:
    """Return the run in `folder` of the latest start of `job` that has saved anything, if any.

    A run without a checkpoint has nothing to go on from: the job begins again, with a new one. The
    first copy of a job, on a node that was lost, may begin a run after the second one did.
    """
    found = {when: run.path for when, run in _runs_of(folder, job) if _has_saved(run)}
    return found[max(found)] if found else None


def give_up_empty_runs(folder: Path, job: str, restart: int) -> list[Path]:
    """Close the runs that earlier starts of `job` began and saved nothing of; return their paths.

    Their record then says so in place of "running", and a first copy of the job that still trains
    there, on a node that the scheduler has lost, is fenced off.
    """
    closed = []
    for _, run in _runs_of(folder, job):
        if _has_saved(run):
            continue
        with contextlib.suppress(RunError, OSError):  # in use, or cut off before it had a record
            record = RunRecord.load(run)
            if record.status != "running":
                continue
            with Lease.take(run, job=job, restart=restart) as lease:
                lease.take_over_at(0)
                record.status, record.ended_at = "interrupted", utc_now()
                record.error = f"job {job} was started again before anything was saved here"
                record.save(run)
            closed.append(run.path)
    return closed


def _runs_of(folder: Path, job: str) -> Iterator[tuple[tuple[int, str], RunDir]]:
    """Yield ((restart, time), run) of those that `job` trained in last."""
    for path in folder.glob("*/generation.json"):
        run = RunDir(path.parent)
        with contextlib.suppress(RunError):  # a damaged one is another job's trouble
            newest = Lineage.read(run.lease_path).newest
            if newest and newest.job == job:
                yield (newest.restart, newest.started_at), run


def _has_saved(run: RunDir) -> bool:
    return any(run.checkpoints_dir.glob("step-*"))


if __name__ == "__main__":
    runs_dir, job_id = Path(sys.argv[1]), sys.argv[2]
    run_path = run_of_job(runs_dir, job_id)
    give_up_empty_runs(runs_dir, job_id, slurm_job(os.environ)[1])
    print(run_path or "", end="")
