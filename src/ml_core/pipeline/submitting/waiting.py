"""Wait until all jobs of a submission have ended, and tell each as it does."""

from __future__ import annotations

import logging
import time

from ml_core.cluster.slurm import Job, Usage, list_jobs, read_usage, why_ended
from ml_core.cluster.slurm.endings import LEFT_NO_TRACE
from ml_core.cluster.slurm.jobs import tasks_of
from ml_core.cluster.submission import Submission, SubmittedJob
from ml_core.errors import ClusterError

logger = logging.getLogger("ml_core.submit")

LOOK_S = 10.0
PATIENCE_S = 1800.0  # for a controller that is restarted
_TAIL_BYTES = 16384


def wait_for_jobs(
    submission: Submission, *, look_s: float = LOOK_S, patience_s: float = PATIENCE_S
) -> bool:
    """Return, once all have ended, whether all did well; each is told as it ends.

    Raises ClusterError where Slurm does not answer for `patience_s`, and KeyboardInterrupt; the
    jobs are unharmed by either.
    """
    watch = _Watch(submission)
    answered_at = time.monotonic()
    while True:
        try:
            watch.look()
            answered_at = time.monotonic()
        except ClusterError as error:
            if time.monotonic() - answered_at > patience_s:
                raise
            logger.warning("%s The jobs go on; looking again in %g s.", error, look_s)
        if watch.is_over:
            return watch.all_well
        time.sleep(look_s)


class _Watch:
    """What is known of the jobs so far."""

    def __init__(self, submission: Submission) -> None:
        self._open = list(submission.jobs)
        self._suspects: set[str] = set()
        self._told: set[str] = set()
        self.all_well = True

    @property
    def is_over(self) -> bool:
        return not self._open

    def look(self) -> None:
        """Ask Slurm once, and tell what has ended since; raises ClusterError."""
        jobs = list_jobs(ids=[job.id for job in self._open])
        for submitted in tuple(self._open):
            tasks = [job for job in jobs if job.id.partition("_")[0] == submitted.id]
            for task in tasks:
                if self._is_over(task):
                    self._tell_queued(submitted, task)
            if all(task.id in self._told for task in tasks):
                self._tell_forgotten(submitted)
                self._open.remove(submitted)

    def _is_over(self, task: Job) -> bool:
        """Return whether a task has ended for good.

        A preempted one, or that of a lost node, is seen as ended a moment before it is put back:
        what has ended badly must have done so at two looks.
        """
        if task.state == "COMPLETED":
            return True
        seen_before = task.id in self._suspects
        if task.has_ended:
            self._suspects.add(task.id)
        else:
            self._suspects.discard(task.id)
        return task.has_ended and seen_before

    def _tell_queued(self, submitted: SubmittedJob, task: Job) -> None:
        """Tell how a task ended that squeue still knows."""
        if task.id in self._told:
            return
        usage = None
        if task.state != "COMPLETED":
            usage = _usages(task.id).get(task.id)
        why = why_ended(task, usage, _tail(submitted, task.id), submitted.go_on)
        self._tell(submitted, task.id, why, task.state == "COMPLETED")

    def _tell_forgotten(self, submitted: SubmittedJob) -> None:
        """Tell from the accounts, or their logs alone, of tasks that squeue knows no more."""
        told = frozenset[str]().union(*map(tasks_of, self._told))
        left = [job_id for job_id in submitted.task_ids if job_id not in told]
        if not left or submitted.id in told:  # an array's number: cancelled before a task began
            return
        usages = _usages(submitted.id)
        others_are_told = len(left) < len(submitted.task_ids)
        for job_id in left:
            usage, tail = usages.get(job_id), _tail(submitted, job_id)
            if others_are_told and usage is None and not tail:
                self._tell(submitted, job_id, LEFT_NO_TRACE, is_well=False)
                continue
            why = why_ended(None, usage, tail, submitted.go_on)
            is_well = usage is not None and usage.state == "COMPLETED"
            self._tell(submitted, job_id, why, is_well)

    def _tell(self, submitted: SubmittedJob, job_id: str, why: str, is_well: bool) -> None:
        self._told.add(job_id)
        self.all_well &= is_well
        level = logging.INFO if is_well else logging.ERROR
        logger.log(level, "%s (%s): %s", job_id, submitted.name, why)


def _usages(job_id: str) -> dict[str, Usage]:
    """Return what the accounts say of a job's tasks that have ended; nothing where there are none.

    They are kept by another daemon, which may lag behind.
    """
    try:
        usages = read_usage([job_id]) or {}
    except ClusterError:
        return {}
    return {key: usage for key, usage in usages.items() if usage.has_ended}


def _tail(submitted: SubmittedJob, job_id: str) -> str:
    """Return the end of a log; "" where there is none, as of a job that never started."""
    try:
        with open(submitted.log_path(job_id), "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
