"""Why a job waits, in one sentence, and what to do about it.

The codes are those of Slurm's job_reason_codes.html and src/common/job_state_reason.c (24.11).
"""

from __future__ import annotations

import re

from ml_core.cluster.slurm.fields import duration
from ml_core.cluster.slurm.jobs import Job

_REASONS = {
    "Priority": "jobs of a higher priority are before it in {partition}: wait",
    "Resources": "it is among the next: wait until enough of {partition} is free",
    "Dependency": "it waits for {dependency}: wait",
    "DependencyNeverSatisfied": (
        "the job it waits for has ended otherwise than it needs, so it will never start: "
        "scancel {id}, mend that one, and submit both again"
    ),
    "BeginTime": "it may not start earlier: wait",
    "JobHeldUser": "its owner holds it: scontrol release {id}",
    "JobHeldAdmin": "an administrator holds it: ask whoever runs the cluster why",
    "JobHoldMaxRequeue": (
        "it was started again too often: see its log for what ends it, then scontrol release {id}"
    ),
    "JobArrayTaskLimit": "as many tasks of its array run as it allows at once: wait",
    "Cleaning": "its earlier start is still being cleaned up: wait",
    "Prolog": "its machine is being prepared: wait",
    "Licenses": "it waits for a licence: wait",
    "SchedDefer": "it asked to start at once, which this cluster does not do: submit it without",
    "PartitionDown": (
        "partition {partition} takes no jobs now: wait until it is up, or scancel {id} and submit "
        "to another one"
    ),
    "PartitionInactive": (
        "partition {partition} is switched off: scancel {id} and submit to another one"
    ),
    "PartitionTimeLimit": (
        "its time limit of {limit} is more than {partition} allows, so it will never start: "
        "scancel {id} and ask for less, or for another partition"
    ),
    "PartitionNodeLimit": (
        "{partition} does not give {num_nodes} nodes to one job, or they are down: scancel {id} "
        "and ask for fewer"
    ),
    "PartitionConfig": (
        "it asks for more than {partition} has or allows, so it will never start: scancel {id} and "
        "ask for less"
    ),
    "MaxMemPerLimit": (
        "it asks for more memory than {partition} gives: scancel {id} and ask for less"
    ),
    "BadConstraints": (
        "no machine has what it asks for, so it will never start: scancel {id} and ask for less"
    ),
    "Constraints": "no machine that is up has the features it asks for: wait, or ask for less",
    "AccountNotAllowed": "its account may not use {partition}: submit it with one that may",
    "InvalidAccount": "its account is not known here: submit it with --account of one that is",
    "InvalidQOS": "its QOS is not known here: submit it with one that is, or without",
    "QOSNotAllowed": "its account or {partition} does not allow its QOS: submit it with another",
    "QOSUsageThreshold": "its QOS has been used too much of late: wait, or use another",
    "Reservation": "it waits for its reservation to begin: wait",
    "ReservationDeleted": "its reservation is gone: scancel {id} and submit it without",
    "ReservationInvalid": "its reservation is not one: scancel {id} and submit it without",
    "NodeDown": "a machine that it needs is down: wait, or ask for another one",
    "FrontEndDown": "the machine that starts jobs is down: wait",
    "JobLaunchFailure": (
        "it could not be started: see that the folder of its log is there on the machines too"
    ),
    "launch failed requeued held": (
        "it could not be started and is held: see that the folder of its log is there on the "
        "machines too, then scontrol release {id}"
    ),
    "job requeued in held state": "it was put back and held: scontrol release {id}",
    "SystemFailure": "Slurm, a disk or the network failed: ask whoever runs the cluster",
    "DeadLine": "it cannot end before its deadline: scancel {id} and submit it without",
    "AccountingPolicy": (
        "its account or QOS does not allow what it asks for: scancel {id} and ask for less"
    ),
    "AssociationJobLimit": "its account runs as many jobs as it may: wait",
    "AssociationResourceLimit": "its account uses as much as it may at once: wait",
    "AssociationTimeLimit": "its account's time is used up: ask for more, or use another account",
    "QOSJobLimit": "its QOS runs as many jobs as it may: wait",
    "QOSResourceLimit": "its QOS uses as much as it may at once: wait",
    "QOSTimeLimit": "its QOS has used up its time: ask for more, or use another",
    "PowerNotAvail": "there is not enough power for it now: wait",
    "PowerReserved": "the power it needs is reserved: wait",
    "BurstBufferStageIn": "its data are being brought: wait",
    "BurstBufferResources": "it waits for space in the burst buffer: wait",
    "BurstBufferOperation": "its data could not be brought: scancel {id}, and see where they lie",
    "FedJobLock": "it waits for the other clusters: wait",
    "WaitingForScheduling": "the scheduler has not looked at it yet: ask again in a minute",
    "None": "the scheduler has not looked at it yet: ask again in a minute",
}
# Those of one partition: of several that a job names Slurm tells the last one it tried, and starts
# the job in another (measured: PartitionTimeLimit of "long,short", which then ran in long).
_OF_A_PARTITION = {
    "PartitionDown", "PartitionInactive", "PartitionTimeLimit", "PartitionNodeLimit",
    "PartitionConfig", "MaxMemPerLimit", "AccountNotAllowed",
}  # fmt: skip
# "afterok:12(unfulfilled),afterany:13_*(unfulfilled)", and what each kind waits for, from sbatch(1)
_DEPENDENCY = re.compile(r"(after\w*):([\d_*]+)(?:\+\d+)?\(unfulfilled\)")
_AWAITED = {
    "after": "to start", "afterany": "to end", "afterok": "to end well",
    "afternotok": "to fail", "aftercorr": "to end well, task by task",
}  # fmt: skip
# "AssocGrpCPUMinutesLimit", "QOSMaxGRESPerUser", "MaxJobsPerAccount", "QOSMinCpuNotSatisfied"
_LIMIT = re.compile(
    r"(?P<who>Assoc|QOS|)(?P<kind>Grp|Max|Min)(?P<what>[A-Z][A-Za-z]*?)"
    r"(?P<minutes>RunMinutes|Minutes)?(?P<each>Per(?:Job|User|Node|Account))?"
    r"(?P<end>Limit|NotSatisfied)?"
)
_WHAT = {
    "BB": "burst buffer", "Billing": "billing units", "CPU": "CPUs", "Cpu": "CPUs",
    "Energy": "energy", "GRES": "GPUs", "Job": "jobs", "Jobs": "jobs", "License": "licences",
    "Mem": "memory", "Memory": "memory", "Node": "nodes", "SubmitJob": "jobs, waiting ones too",
    "SubmitJobs": "jobs, waiting ones too", "Unknown": "some resource", "Wall": "time",
    "WallDuration": "time",
}  # fmt: skip


def why_pending(job: Job) -> str:
    """Return in one sentence why `job` waits and what to do; unknown reasons are passed on.

    With when Slurm expects it to start, where it says so.
    """
    reason = job.reason or "None"
    code, _, detail = reason.partition(", ")
    if code == "ReqNodeNotAvail":
        told = _machines_not_free(detail)
    elif code == "BeginTime" and job.restarts:
        told = "it was stopped and is put back; Slurm waits a moment before it starts it again"
    elif reason.startswith("Nodes required for job are DOWN"):
        # 22.05 says so too where they are only busy, as when the job names its machines
        told = (
            "the machines that it could run on are busy, down or reserved: wait, or ask for others"
        )
    elif reason in _OF_A_PARTITION and "," in job.partition:
        told = f"one of {job.partition} does not take it ({reason}), and it waits for the others"
    elif reason in _REASONS:
        told = _REASONS[reason].format(
            id=job.id,
            partition=job.partition,
            num_nodes=job.num_nodes,
            limit="any length" if job.limit_s is None else duration(job.limit_s),
            dependency=_awaited(job.dependency or ""),
        )
    else:
        told = _limit(code) or f"Slurm says: {reason}"
    return f"{told}.{_expected(job)}"


def _awaited(dependency: str) -> str:
    """Return ``job 12 to end well, job 13 to end`` for what squeue lists as not yet fulfilled."""
    awaited = [
        f"job {job.removesuffix('_*')} {_AWAITED.get(kind, f'({kind})')}"
        for kind, job in _DEPENDENCY.findall(dependency)
    ]
    return ", ".join(awaited) or f"another job{dependency and f' ({dependency})'}"


def _machines_not_free(detail: str) -> str:
    """Return what ``ReqNodeNotAvail`` means, whose `detail` is words or ``UnavailableNodes:n1``."""
    if "maintenance" in detail.lower():
        return (
            "maintenance begins before it could end: wait for its end, or ask for a time limit "
            "that ends before it begins"
        )
    nodes = detail.removeprefix("UnavailableNodes:")
    which = f" ({nodes})" if nodes else ""
    return f"a machine it needs is down, reserved or busy{which}: wait, or ask for others"


def _limit(code: str) -> str | None:
    """Return what a limit's code says, as ``QOSMaxJobsPerUserLimit``; None where it is not one."""
    match = _LIMIT.fullmatch(code)
    if match is None or match["what"] not in _WHAT:
        return None
    whose = "its account" if match["who"] == "Assoc" else "its QOS"
    what = _WHAT[match["what"]]
    if match["kind"] == "Min":
        return f"it asks for less than {whose} wants ({what}): submit it with more"
    if match["kind"] == "Grp" and match["minutes"] == "Minutes":
        return f"the budget of {whose} is used up ({what} x time): ask for more, or use another"
    if match["kind"] == "Grp" or match["what"] in ("Job", "Jobs", "SubmitJob", "SubmitJobs"):
        return f"{whose} has as much at once as it may ({what}): wait until others have ended"
    if match["each"] in ("PerUser", "PerAccount"):
        return f"you have as much at once as {whose} allows ({what}): wait until others have ended"
    return f"it asks for more than {whose} allows one job ({what}): submit it with less"


def _expected(job: Job) -> str:
    return "" if job.started is None else f" Slurm expects to start it at {job.started:%F %H:%M}."
