"""One job, or task of an array, from whoever still knows of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from ml_core.cluster.slurm import ExitCode, Job, Usage
from ml_core.cluster.slurm.jobs import ENDED, tasks_of
from ml_core.cluster.slurm.log_tail import LogTail, read_tail
from ml_core.cluster.submission import Submission, SubmittedJob
from ml_core.pipeline.job_list.log_end import LogEnd, as_shown, read_log_end

UNKNOWN = "UNKNOWN"  # neither Slurm nor the log says


@dataclass(frozen=True)
class KnownJob:
    """A job as squeue, sacct, its submission and its log tell it; None is who knows nothing.

    `id` is what scancel takes: "12", "12_3", or "12_[4-7]" for tasks that wait together.
    """

    id: str
    job: Job | None = None
    usage: Usage | None = None
    submission: Submission | None = None
    submitted: SubmittedJob | None = None

    @property
    def name(self) -> str:
        names = [each.name for each in (self.submitted, self.job, self.usage) if each is not None]
        return as_shown(names[0].partition("\n")[0]) if names else ""

    @property
    def number(self) -> str:
        """The number of the job, or of the whole array."""
        return self.id.partition("_")[0]

    @cached_property
    def tasks(self) -> frozenset[str]:
        """The tasks that wait together as this one; itself where it is alone."""
        return tasks_of(self.id)

    def stands_for(self, job_id: str) -> bool:
        """Return whether a user who says `job_id`, a job, a task or a whole array, means this."""
        return job_id in {self.id, self.number} | self.tasks

    @cached_property
    def state(self) -> str:
        """As squeue calls it; of a job that Slurm has forgotten, what its log tells of its end."""
        if self.job is not None:
            return self.job.state
        if self.usage is not None and self.usage.has_ended:
            return self.usage.state
        return self.tail.state or ("FAILED" if self.tail.exit_code else UNKNOWN)

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def exit_code(self) -> ExitCode | None:
        if self.job is not None:
            return self.job.exit_code
        return self.usage.exit_code if self.usage is not None else self.tail.exit_code

    @property
    def elapsed_s(self) -> int | None:
        """How long its last start has run; None where nobody knows."""
        told = self.job or self.usage
        return None if told is None else told.elapsed_s

    @property
    def limit_s(self) -> int | None:
        told = self.job or self.usage
        return None if told is None else told.limit_s

    @property
    def restarts(self) -> int:
        return 0 if self.job is None else self.job.restarts

    @property
    def nodes(self) -> str | None:
        told = self.job or self.usage
        return None if told is None else told.nodes

    @property
    def partition(self) -> str | None:
        told = self.job or self.usage
        return None if told is None else told.partition

    @property
    def submitted_at(self) -> datetime | None:
        """When it was submitted, in local time; a requeue moves what squeue says of it."""
        if self.submission is not None:
            at = datetime.fromisoformat(self.submission.submitted_at)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return at.astimezone().replace(tzinfo=None)
        told = self.job or self.usage
        return None if told is None else told.submitted

    @property
    def last_heard(self) -> datetime | None:
        """When it ended or last wrote into its log; else when it was submitted."""
        ended = self.usage.ended if self.usage is not None and self.usage.has_ended else None
        return ended or self._log_changed or self.submitted_at

    @property
    def go_on(self) -> str | None:
        """The command that takes it up again, if it was submitted here."""
        return None if self.submitted is None else self.submitted.go_on or None

    @property
    def log_path(self) -> Path | None:
        """Where its log is, or will be; None for tasks that wait together: each has its own."""
        if "[" in self.id:
            return None
        if self.submitted is not None:
            return self.submitted.log_path(self.id)
        return None if self.job is None else self.job.stdout

    @property
    def _log_changed(self) -> datetime | None:
        """When its log was last written, which is cheaper to ask than what is in it."""
        try:
            return datetime.fromtimestamp(self.log_path.stat().st_mtime) if self.log_path else None
        except OSError:
            return None

    @cached_property
    def log_end(self) -> LogEnd:
        return LogEnd() if self.log_path is None else read_log_end(self.log_path)

    @cached_property
    def tail(self) -> LogTail:
        return read_tail(self.log_end.text)
