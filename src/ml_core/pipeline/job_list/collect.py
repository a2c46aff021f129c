"""Gather what is known of a user's jobs: from squeue, sacct, what was submitted here, the logs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ml_core.cluster.slurm import Job, Usage, list_jobs, read_usage
from ml_core.cluster.slurm.jobs import comma_list
from ml_core.cluster.submission import Submission
from ml_core.errors import ClusterError
from ml_core.pipeline.job_list.known_job import KnownJob


@dataclass(frozen=True)
class Collected:
    """Jobs in the order of their submission, and what could not be asked for them."""

    jobs: tuple[KnownJob, ...]
    no_slurm: str | None  # why squeue was of no help
    no_accounts: str | None  # why sacct was of no help, or was not asked


def collect_jobs(
    submissions: Sequence[Submission], *, user: str, ids: Sequence[str] = ()
) -> Collected:
    """Return the jobs of `ids`, or, without, those of `user` in the queue and all submitted ones.

    The number of an array stands for all its tasks. Raises ClusterError for what is no job's id,
    and where there is no Slurm and nothing was submitted.
    """
    comma_list(ids)
    known = {each.id: each for each in _of_submissions(submissions) if _is_wanted(each, ids)}
    queued, no_slurm = _ask_squeue(user, ids, nothing_else=not known)
    known = _with_queued(known, queued)
    left = [each.number for each in known.values() if each.job is None or each.has_ended]
    usage, no_accounts = ({}, no_slurm) if no_slurm else _ask_sacct({*left, *ids})
    known = _with_usage(known, usage, ids)
    return Collected(tuple(sorted(known.values(), key=_order)), no_slurm, no_accounts)


def _of_submissions(submissions: Sequence[Submission]) -> Iterable[KnownJob]:
    """Yield each job and task that was submitted, the oldest first: a number may come again."""
    for submission in reversed(submissions):
        for submitted in submission.jobs:
            for job_id in submitted.task_ids:
                yield KnownJob(job_id, submission=submission, submitted=submitted)


def _is_wanted(known: KnownJob, ids: Sequence[str]) -> bool:
    """Return whether it is, or belongs to, one of `ids`; each is where there are none."""
    return not ids or any(map(known.stands_for, ids))


def _ask_squeue(
    user: str, ids: Sequence[str], *, nothing_else: bool
) -> tuple[tuple[Job, ...], str | None]:
    try:
        return (list_jobs(ids=ids) if ids else list_jobs(user=user)), None
    except ClusterError as error:
        if nothing_else:
            raise
        return (), str(error)


def _ask_sacct(numbers: Collection[str]) -> tuple[dict[str, Usage], str | None]:
    try:
        usage = read_usage(sorted(numbers))
    except ClusterError as error:
        return {}, str(error)
    return ({}, "this cluster keeps no accounts") if usage is None else (usage, None)


def _with_queued(known: dict[str, KnownJob], queued: Iterable[Job]) -> dict[str, KnownJob]:
    """Return the jobs with what squeue says; tasks that wait together become one.

    Of an array that was cancelled before a task began, 22.05 keeps the bare number alone.
    """
    known = dict(known)
    for job in sorted(queued, key=lambda job: job.id.isdecimal()):
        untold = [key for key, each in known.items() if each.number == job.id and not each.job]
        if untold and job.id not in known and not _is_another(known[untold[0]], job.name):
            known |= {key: replace(known[key], job=job) for key in untold}
            continue
        tasks = [task for task in KnownJob(job.id).tasks if task in known]
        of_same = known[tasks[0]] if tasks else KnownJob(job.id)
        if _is_another(of_same, job.name):
            of_same = KnownJob(job.id)
        for task in tasks:
            del known[task]
        known[job.id] = replace(of_same, id=job.id, job=job)
    return known


def _with_usage(
    known: dict[str, KnownJob], usage: dict[str, Usage], ids: Sequence[str]
) -> dict[str, KnownJob]:
    """Return the jobs with what sacct says, and those of `ids` that only it knows."""
    known = dict(known)
    for job_id, used in usage.items():
        before = known.get(job_id)
        if before is not None and not _is_another(before, used.name):
            known[job_id] = replace(before, usage=used)
        elif before is None and _is_new(KnownJob(job_id), known.values(), ids):
            known[job_id] = KnownJob(job_id, usage=used)
    return known


def _is_new(told: KnownJob, known: Iterable[KnownJob], ids: Sequence[str]) -> bool:
    """Return whether only sacct knows this job of `ids`, and it is not told with others.

    Of a cancelled array it has the bare number besides the tasks.
    """
    covered = {task for each in known for task in (*each.tasks, each.number)}
    return bool(ids) and _is_wanted(told, ids) and not (told.tasks & covered)


def _is_another(known: KnownJob, name: str) -> bool:
    """Return whether a job of this name is not the one submitted: numbers begin anew with Slurm."""
    return known.submitted is not None and known.submitted.name != name.partition("\n")[0]


def _order(known: KnownJob) -> tuple[datetime, int, int]:
    number, _, task = known.id.partition("_")
    first = re.search(r"\d+", task)
    return known.submitted_at or datetime.min, int(number), int(first[0]) if first else -1
