"""Hand the planned jobs to Slurm, each after the one before it: all of them, or none."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.job_script import render_script
from ml_core.cluster.slurm.commands import Refused
from ml_core.cluster.slurm.submit import cancel, jobs_of_folder, submit
from ml_core.cluster.submission import Submission, SubmittedJob, remember
from ml_core.durable import make_folder
from ml_core.errors import ClusterError, cannot_write
from ml_core.pipeline.submitting.plan import PlannedJob
from ml_core.runs import write_text

logger = logging.getLogger("ml_core.submit")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make the folder of a submission, for as long as nothing is raised; raises ClusterError."""
    try:
        make_folder(path.parent)
        path.mkdir()
    except FileExistsError as error:
        raise ClusterError(
            f"{path} was made by another submission of this second. Submit again."
        ) from error
    except OSError as error:
        raise ClusterError(cannot_write(path, error)) from error
    try:
        yield path
    except BaseException:
        if not (path / "submission.json").exists():  # else Slurm has jobs whose logs go there
            shutil.rmtree(path, ignore_errors=True)
        raise


def queue_jobs(planned: Sequence[PlannedJob], submission: Submission) -> Submission:
    """Return `submission` with the jobs that Slurm has taken, saved and remembered.

    Raises ClusterError when one is refused; those before it are then cancelled, and it says so.
    """
    for job in planned:  # before the first is queued: a full disk must not end a half of them
        _write_script(job, job.request)
    submission.save()
    taken: list[SubmittedJob] = []
    try:
        for job in planned:
            request = _after(job.request, taken)
            _write_script(job, request)
            taken.append(_submitted(submit(job.script_path), job))
            submission = dataclasses.replace(submission, jobs=tuple(taken))
            submission.save()
    except BaseException as error:
        if told := _take_back(taken, submission.folder, is_refused=isinstance(error, Refused)):
            refused = planned[min(len(taken), len(planned) - 1)].request.name
            why = (str(error) or "interrupted").rstrip(".")
            raise ClusterError(f"{refused}: {why}. {told}") from error
        submission.record_path.unlink(missing_ok=True)
        raise
    remember(submission)
    return submission


def _after(request: JobRequest, taken: Sequence[SubmittedJob]) -> JobRequest:
    """Return the request that waits for the last job taken, if there is one."""
    return dataclasses.replace(request, after=(taken[-1].id,)) if taken else request


def _write_script(job: PlannedJob, request: JobRequest) -> None:
    try:
        write_text(job.script_path, render_script(request, job.profile))
    except OSError as error:
        raise ClusterError(cannot_write(job.script_path, error)) from error


def _submitted(job_id: str, job: PlannedJob) -> SubmittedJob:
    num_tasks = len(job.request.array_arguments) or None
    return SubmittedJob(
        id=job_id,
        name=job.request.name,
        num_tasks=num_tasks,
        log=job.request.log_pattern,
        go_on=job.go_on,
    )


def _take_back(taken: Sequence[SubmittedJob], folder: Path, *, is_refused: bool) -> str:
    """Cancel what was taken; return what became of it, "" where there was nothing.

    Where sbatch did not say no, but was slow or cut off, Slurm may have taken one job more.
    """
    ids = [job.id for job in taken]
    try:
        if not is_refused:
            ids += [job_id for job_id in jobs_of_folder(folder) if job_id not in ids]
        if ids:
            cancel(ids)
    except ClusterError as second:
        return (
            f"What Slurm had taken is not cancelled ({second}): see squeue --me, and scancel those "
            f"of {folder.name}{''.join(f', {job_id}' for job_id in ids)}"
        )
    return f"What Slurm had taken was cancelled: {', '.join(ids)}." if ids else ""
