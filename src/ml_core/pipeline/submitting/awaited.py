"""Refuse to wait for a job that is not there, or that has failed already.

Slurm 22.05 takes both (measured): the one starts at once, as if what it waits for were done, and
the other is cancelled at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_core.cluster.slurm import list_jobs, read_usage
from ml_core.cluster.slurm.jobs import ENDED, tasks_of
from ml_core.errors import ClusterError


def refuse_awaited(ids: Sequence[str]) -> None:
    """Raise ClusterError for the first of `ids`, jobs or tasks, that a job cannot wait for."""
    queued = [(job.id, job.state) for job in list_jobs(ids=ids)]
    for job_id in ids:
        states = list(_states_of(job_id, queued)) or _states_in_accounts(job_id)
        if not states:
            raise ClusterError(
                f"--after {job_id}: Slurm knows no such job, or no more, and would start this one "
                "at once. Those that it knows: ml-core jobs. If that job ended well, leave it out."
            )
        failed = [state for state in states if state in ENDED - {"COMPLETED"}]
        if failed:
            raise ClusterError(
                f"--after {job_id}: that job is {failed[0]}, so this one would never start. Why: "
                f"ml-core jobs {job_id}"
            )


def _states_in_accounts(job_id: str) -> list[str]:
    """Return the states of a job that squeue has forgotten; none where nobody answers."""
    try:
        usages = read_usage([job_id]) or {}
    except ClusterError:
        return []
    return list(_states_of(job_id, [(key, usage.state) for key, usage in usages.items()]))


def _states_of(job_id: str, told: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the states of the job or task `job_id`; of an array's number, those of all tasks."""
    for each, state in told:
        if job_id in {each.partition("_")[0]} | tasks_of(each):
            yield state
