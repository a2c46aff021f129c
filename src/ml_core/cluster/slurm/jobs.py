"""What Slurm says of jobs that wait, run, or ended a short while ago.

All of it comes from ``squeue --Format``, whose fields have an end that no name holds; in what
``scontrol show job -o`` prints, a job called ``x JobState=FAILED`` cannot be told from a failed
one. Slurm forgets an ended job after MinJobAge, 5 minutes by default: see `accounting` for older.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ml_core.cluster.slurm import fields
from ml_core.cluster.slurm.commands import Refused, run
from ml_core.errors import ClusterError

JOB_FIELDS = (
    "JobID", "ArrayJobID", "ArrayTaskID", "State", "Reason", "Partition", "NodeList",
    "NumNodes", "SubmitTime", "StartTime", "TimeUsed", "TimeLimit", "RestartCnt", "exit_code",
    "Dependency", "UserName", "STDOUT", "Name",
)  # fmt: skip
# squeue(1), JOB STATE CODES: states that a job does not leave by itself.
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "REVOKED", "TIMEOUT",
}  # fmt: skip
WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_ID = re.compile(r"\d+(_(\d+|\[[\d,%:-]+\]))?")
_TOGETHER = re.compile(r"(\d+)_\[([\d,-]+)[^\]]*\]")


@dataclass(frozen=True)
class ExitCode:
    """How a job's script ended: with a code, or by a signal where that is not 0."""

    code: int
    signal: int = 0


@dataclass(frozen=True)
class Job:
    """A job, a task of an array, or the tasks of an array that still wait together.

    `id` is what squeue, scontrol and scancel take: ``12``, ``12_3``, ``12_[4-7]``. `started` of a
    job that waits is when Slurm expects it to start, if it does; times are of the cluster's zone.
    """

    id: str
    array_task: str | None  # "3", or "4-7%2" of those that wait; None of a job without an array
    name: str
    user: str
    state: str
    reason: str | None  # why it waits, or how it ended; see `reasons`
    partition: str
    nodes: str | None  # "n[1-2]"; None before it has some
    num_nodes: int
    submitted: datetime | None
    started: datetime | None
    elapsed_s: int
    limit_s: int | None
    restarts: int
    exit_code: ExitCode | None  # None until it ended
    dependency: str | None
    stdout: Path | None  # None of tasks that wait together: each has a log of its own

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def is_waiting(self) -> bool:
        return self.state in WAITING


def show_job(job_id: str) -> Job | None:
    """Return one job or task, or None when Slurm does not know it, or no more.

    Of an array's own id it is the first task that Slurm lists. Raises ClusterError.
    """
    return next(iter(list_jobs(ids=[job_id])), None)


def list_jobs(*, user: str | None = None, ids: Sequence[str] | None = None) -> tuple[Job, ...]:
    """Return the jobs of `user`, or those of `ids`, in squeue's order; all jobs for neither.

    Jobs that Slurm does not know are left out. Raises ClusterError.
    """
    arguments = ["--states=all", "--noheader", "--Format", fields.format_of(JOB_FIELDS)]
    if user is not None:
        arguments.append(f"--user={user}")
    if ids is not None:
        if not ids:
            return ()
        arguments.append(f"--jobs={comma_list(ids)}")
    try:
        return parse_jobs(run("squeue", *arguments))
    except Refused as refusal:
        # said only where one id was asked for; of several, unknown ones are left out
        if "Invalid job id specified" in refusal.words:
            return ()
        raise


def parse_jobs(text: str) -> tuple[Job, ...]:
    """Return the jobs in squeue's `JOB_FIELDS`."""
    return tuple(_job(row) for row in fields.records(text, JOB_FIELDS))


def _job(row: dict[str, str]) -> Job:
    state, task = row["State"], fields.text_or_none(row["ArrayTaskID"])
    return Job(
        id=_id(row),
        array_task=task,
        name=row["Name"],
        user=row["UserName"],
        state=state,
        reason=fields.text_or_none(row["Reason"].replace("_", " ")),
        partition=row["Partition"],
        nodes=fields.text_or_none(row["NodeList"]),
        num_nodes=int(row["NumNodes"].partition("-")[0] or 0),
        submitted=fields.when(row["SubmitTime"]),
        started=fields.when(row["StartTime"]),
        elapsed_s=fields.seconds(row["TimeUsed"]) or 0,
        limit_s=fields.seconds(row["TimeLimit"]),
        restarts=int(row["RestartCnt"] or 0),
        exit_code=_exit_code(row["exit_code"]) if state in ENDED else None,
        dependency=fields.text_or_none(row["Dependency"]),
        stdout=_log(row),
    )


def _id(row: dict[str, str]) -> str:
    task = row["ArrayTaskID"].partition("%")[0]  # "%2", how many run at once, scancel does not take
    if fields.text_or_none(task) is None:
        return row["JobID"]
    return f"{row['ArrayJobID']}_{task if task.isdecimal() else f'[{task}]'}"


def _exit_code(text: str) -> ExitCode | None:
    """Return the exit code in a wait(2) status, as squeue prints it: 256 is code 1, 15 SIGTERM."""
    if not text.isdecimal():
        return None
    return ExitCode(code=int(text) >> 8 & 0xFF, signal=int(text) & 0x7F)


def _log(row: dict[str, str]) -> Path | None:
    """Return where the job's output goes, with the patterns of sbatch(1) filled in."""
    pattern, task = fields.text_or_none(row["STDOUT"]), row["ArrayTaskID"]
    is_task = task.isdecimal()
    if pattern is None or not (is_task or fields.text_or_none(task) is None):
        return None
    values = {
        "j": row["JobID"],
        "A": row["ArrayJobID"] if is_task else row["JobID"],
        "a": task if is_task else "4294967294",  # what Slurm writes outside of an array
        "u": row["UserName"],
        "x": row["Name"],
        "%": "%",
    }
    filled = re.sub(
        r"%(\d*)([jAaux%])", lambda match: values[match[2]].zfill(int(match[1] or 0)), pattern
    )
    return Path(filled)


def tasks_of(job_id: str) -> frozenset[str]:
    """Return the tasks that "12_[0,4-6]" stands for, 12_0, 12_4, 12_5, 12_6; of others itself."""
    match = _TOGETHER.fullmatch(job_id)
    if match is None:
        return frozenset({job_id})
    spans = [part.partition("-") for part in match[2].split(",")]
    numbers = [n for first, _, last in spans for n in range(int(first), int(last or first) + 1)]
    return frozenset(f"{match[1]}_{number}" for number in numbers)


def comma_list(ids: Sequence[str]) -> str:
    """Return ``12,14_3`` for squeue and sacct; raises ClusterError for what is no job's id."""
    for job_id in ids:
        if not _ID.fullmatch(job_id):
            raise ClusterError(
                f"'{job_id}' is no job's id: that is as 12, or 12_3 for a task of an array. "
                "squeue --me lists yours."
            )
    return ",".join(ids)
