"""What jobs used of what they asked for, from sacct where the site keeps accounts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ml_core.cluster.slurm import fields
from ml_core.cluster.slurm.commands import Refused, run
from ml_core.cluster.slurm.jobs import ENDED, ExitCode, comma_list

USAGE_FIELDS = (
    "JobID", "State", "ExitCode", "DerivedExitCode", "ElapsedRaw", "AllocCPUS", "TotalCPU",
    "MaxRSS", "ReqMem", "AllocTRES", "TRESUsageInTot", "NodeList", "Partition", "User", "Submit",
    "Start", "End", "Timelimit", "Reason", "NTasks",
    "JobName",  # last: one with a newline in it ends here, and the rest is no row
)  # fmt: skip
_ABSURD_MB = 2**40  # sacct 22.05 says 18446744073709551616.00M where no node had been found
_NO_ACCOUNTS = "accounting storage is disabled"


@dataclass(frozen=True)
class Usage:
    """What a job, or a task of an array, had and used; None is what was not measured.

    `max_rss_mb` is the sum of the peaks of the tasks of the step that had most; Slurm looks every
    half minute by default, and misses short ones. `gpu_percent` is summed over the GPUs.
    """

    job: str  # "12", or "12_3"
    state: str
    cancelled_by: int | None  # a user's id
    exit_code: ExitCode
    elapsed_s: int
    cpus: int
    cpu_s: float | None
    max_rss_mb: float | None
    asked_mem_mb: float | None  # as its memory, on all nodes together
    gpus: dict[str, int] = field(default_factory=dict)  # {type: n}, of all nodes
    gpu_percent: float | None = None
    nodes: str | None = None
    num_tasks: int = 1  # of the step that had most
    name: str = ""
    user: str | None = None
    partition: str | None = None
    submitted: datetime | None = None  # these are of the cluster's zone
    started: datetime | None = None
    ended: datetime | None = None
    limit_s: int | None = None
    reason: str | None = None  # why it waited before it started, as in `reasons`

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def cpu_efficiency(self) -> float | None:
        """The part of its CPUs' time that it computed, from 0 to 1, as seff gives it."""
        had_s = self.elapsed_s * self.cpus
        return None if self.cpu_s is None or had_s == 0 else self.cpu_s / had_s

    @property
    def mem_efficiency(self) -> float | None:
        """The part of its memory that it filled, from 0 to 1, as far as Slurm saw."""
        if self.max_rss_mb is None or not self.asked_mem_mb:
            return None
        return self.max_rss_mb / self.asked_mem_mb


def read_usage(ids: Sequence[str]) -> dict[str, Usage] | None:
    """Return what these jobs used, by id, an array's tasks each; None without accounting.

    Jobs that the accounts do not hold are left out; a requeued one is told by its last start.
    Raises ClusterError.
    """
    if not ids:
        return {}
    arguments = ("--parsable2", "--noheader", "--noconvert", f"--delimiter={fields.FIELD_END}")
    wanted = (f"--jobs={comma_list(ids)}", f"--format={','.join(USAGE_FIELDS)}")
    try:
        return parse_usage(run("sacct", *arguments, *wanted))
    except Refused as refusal:
        if _NO_ACCOUNTS in refusal.words:
            return None
        raise


def parse_usage(text: str) -> dict[str, Usage]:
    """Return the jobs in sacct's `USAGE_FIELDS`, which has a line per job and one per step of it.

    The job's own line knows what it was given, its steps' what they used.
    """
    jobs: dict[str, list[dict[str, str]]] = {}
    for line in text.split("\n"):
        values = line.split(fields.FIELD_END)
        if len(values) == len(USAGE_FIELDS):
            row = dict(zip(USAGE_FIELDS, values, strict=True))
            job = re.sub(r"%\d+", "", row["JobID"].partition(".")[0])  # "12_[4-7%2]", as in `jobs`
            jobs.setdefault(job, []).append(row)
    return {job: _usage(job, rows[0], rows[1:]) for job, rows in jobs.items()}


def _usage(job: str, own: dict[str, str], steps: list[dict[str, str]]) -> Usage:
    state, _, canceller = own["State"].partition(" by ")  # "CANCELLED by 1000"
    loads = [fields.tres(step["TRESUsageInTot"]).get("gres/gpuutil", "") for step in steps]
    return Usage(
        job=job,
        state=state,
        cancelled_by=int(canceller) if canceller.isdecimal() else None,
        exit_code=_exit_code(own, steps),
        elapsed_s=int(own["ElapsedRaw"] or 0),
        cpus=int(own["AllocCPUS"] or 0),
        cpu_s=_cpu_seconds(own["TotalCPU"]) or None,  # 0 while it runs, and where nobody looked
        max_rss_mb=_largest([_peak_mb(step) for step in steps]),
        asked_mem_mb=_memory(own),
        gpus=fields.gpus_of_tres(own["AllocTRES"]),
        gpu_percent=_largest([float(load) for load in loads if load.isdecimal()]),
        nodes=fields.text_or_none(own["NodeList"].replace("None assigned", "")),
        num_tasks=max([int(step["NTasks"] or 1) for step in steps], default=1),
        name=own["JobName"],
        user=fields.text_or_none(own["User"]),
        partition=fields.text_or_none(own["Partition"]),
        submitted=fields.when(own["Submit"]),
        started=fields.when(own["Start"]),
        ended=fields.when(own["End"]),
        limit_s=fields.seconds(own["Timelimit"]),
        reason=fields.text_or_none(own["Reason"]),
    )


def _exit_code(own: dict[str, str], steps: list[dict[str, str]]) -> ExitCode:
    """Return the script's exit code, mended: sacct takes 128 off where it was above that.

    Measured on 22.05: 130 is told as 2, and 137 as 9. The largest code of the steps, which is on
    the job's line too, is told in full, and so is the signal that ended a step.
    """
    code, signal = _code_and_signal(own["ExitCode"])
    largest, _ = _code_and_signal(own["DerivedExitCode"])
    signals = {_code_and_signal(step["ExitCode"])[1] for step in steps} - {0}
    return ExitCode(code + 128 if largest == code + 128 or code in signals else code, signal)


def _code_and_signal(text: str) -> tuple[int, int]:
    code, _, signal = text.partition(":")
    return int(code or 0), int(signal or 0)


def _cpu_seconds(text: str) -> float:
    """Return ``1-02:03:04`` or ``00:05.045`` in seconds."""
    whole, _, part = text.partition(".")
    return (fields.seconds(whole) or 0) + float(f"0.{part or 0}")


def _peak_mb(step: dict[str, str]) -> float | None:
    """Return a step's memory: of all its tasks, or of the largest one where no sum is kept."""
    total = fields.tres(step["TRESUsageInTot"]).get("mem", "")
    return fields.resident_megabytes(total or step["MaxRSS"])


def _memory(own: dict[str, str]) -> float | None:
    """Return the memory it was given, or what it asked for until then; 0 asks for all of a node."""
    given = fields.megabytes(fields.tres(own["AllocTRES"]).get("mem", ""))
    asked = given or fields.megabytes(own["ReqMem"])
    return asked if asked and asked < _ABSURD_MB else None


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
