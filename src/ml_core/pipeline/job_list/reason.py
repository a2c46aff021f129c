"""Why a job waits, or how it ended, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from ml_core.cluster.slurm import Usage, why_ended, why_pending
from ml_core.cluster.slurm.endings import LEFT_NO_TRACE
from ml_core.pipeline.job_list.known_job import UNKNOWN, KnownJob

TAKE_UP = "take it up again"


def why(known: KnownJob, jobs: Sequence[KnownJob], *, slurm_answers: bool) -> str:
    """Return why `known` is in its state; "" where there is nothing to explain: it runs.

    `jobs` are all that were looked for, the other tasks of its array among them.
    """
    if known.job is not None and known.job.is_waiting:
        return why_pending(known.job)
    if known.has_ended or known.state == "FAILED":
        return why_ended(
            known.job,
            _ended(known.usage),
            known.log_end.text,
            go_on=TAKE_UP if known.go_on else "submit it again",
            before=_job_before(known),
        )
    if known.state == UNKNOWN:
        return _why_unknown(known, jobs, slurm_answers=slurm_answers)
    return ""


def _ended(usage: Usage | None) -> Usage | None:
    """Return what sacct says once it knows of the end, which it learns some seconds later."""
    return usage if usage is not None and usage.has_ended else None


def _job_before(known: KnownJob) -> str | None:
    """Return the job of the same submission after which it was to start: each waits for the last.

    Of an array it is the number, since one failed task is enough.
    """
    if known.submission is None:
        return None
    numbers = [submitted.id for submitted in known.submission.jobs]
    place = numbers.index(known.number)
    return numbers[place - 1] if place else None


def _why_unknown(known: KnownJob, jobs: Sequence[KnownJob], *, slurm_answers: bool) -> str:
    """Return what is left to say of a job whose end nobody has told."""
    tail = known.tail
    last = tail.traceback or tail.error or tail.last_line
    log = f"its log ends with: {last}" if last else "it has written no log."
    if not slurm_answers:
        return log
    if known.usage is not None:
        return f"squeue has forgotten it, and sacct never heard of its end; {log}"
    if not last and _others_are_told(known, jobs):
        return LEFT_NO_TRACE
    cluster = known.submission.cluster if known.submission is not None else None
    where = f" (it was submitted to the cluster {cluster})" if cluster else ""
    return f"Slurm knows nothing of it here, or no more{where}; {log}"


def _others_are_told(known: KnownJob, jobs: Sequence[KnownJob]) -> bool:
    """Slurm 22.05 leaves no trace of a task that is cancelled by itself before it starts."""
    others = (job for job in jobs if job.number == known.number and job.id != known.id)
    return any(other.job is not None or other.usage is not None for other in others)
