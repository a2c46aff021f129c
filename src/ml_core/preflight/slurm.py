"""What Slurm would say to the request, where it lets a job wait for ever instead of refusing it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence

from ml_core.cluster.job_script import EARLY_S
from ml_core.cluster.profile import Profile
from ml_core.cluster.slurm import Partition, Request, fields, list_partitions, refuse_request
from ml_core.errors import ClusterError
from ml_core.preflight.check import Check, error, ok, warning

# sbatch(1), INPUT ENVIRONMENT VARIABLES: each stands above the #SBATCH lines of a script. Those of
# the site's own (a default account, colours) are not among them.
OVERRIDING = (
    "SBATCH_ACCOUNT", "SBATCH_ARRAY_INX", "SBATCH_CONSTRAINT", "SBATCH_CPUS_PER_GPU",
    "SBATCH_DISTRIBUTION", "SBATCH_EXCLUSIVE", "SBATCH_EXPORT", "SBATCH_GPUS",
    "SBATCH_GPUS_PER_NODE", "SBATCH_GPUS_PER_TASK", "SBATCH_GRES", "SBATCH_JOB_NAME",
    "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU", "SBATCH_MEM_PER_NODE", "SBATCH_NO_REQUEUE",
    "SBATCH_OPEN_MODE", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_REQUEUE", "SBATCH_RESERVATION",
    "SBATCH_SIGNAL", "SBATCH_TIMELIMIT", "SBATCH_WAIT",
)  # fmt: skip


def has_slurm() -> bool:
    """Return whether the programs of Slurm are on PATH."""
    return shutil.which("scontrol") is not None


def request_of(profile: Profile) -> Request:
    """Return what a job of `profile` asks of each node."""
    tasks = profile.tasks_per_node
    cpus = profile.cpus_per_task * tasks
    kind, _, number = (profile.gpus or "0").rpartition(":")
    return Request(
        partition=profile.partition,
        nodes=profile.nodes,
        cpus=cpus,
        mem_mb=memory_of(profile),
        gpus=int(number) * tasks,
        gpu_type=kind or None,
        time_s=fields.seconds(profile.time),
        account=profile.account,
        qos=profile.qos,
    )


def memory_of(profile: Profile) -> int | None:
    """Return the MiB that a job of `profile` asks of each node; None where it leaves that out."""
    if profile.mem_gb is not None:
        return math.ceil(profile.mem_gb * 1024) * profile.tasks_per_node
    if profile.mem_per_cpu_gb is not None:
        per_cpu_mb = math.ceil(profile.mem_per_cpu_gb * 1024)
        return per_cpu_mb * profile.cpus_per_task * profile.tasks_per_node
    return None


def check_slurm(profile: Profile, *, needs_slurm: bool) -> tuple[list[Check], list[Partition]]:
    """Return whether a partition can run a job of `profile`, and the partitions there are.

    Where Slurm is not there or does not answer, that is an error if it is needed.
    """
    if not has_slurm():
        if needs_slurm:
            told = "no Slurm here: scontrol is not on PATH."
            return [error("slurm", told, "Log in to the cluster and submit there.")], []
        return [ok("slurm", "no Slurm here; ml-core runs on this machine without it.")], []
    try:
        partitions = list_partitions()
    except ClusterError as problem:
        told = str(problem)
        return [error("slurm", told) if needs_slurm else warning("slurm", told)], []
    request = request_of(profile)
    try:
        refuse_request(partitions, request)
    except ClusterError as problem:
        told, offer, partitions_there = str(problem).partition("This cluster has:")
        return [error("slurm", told, offer + partitions_there)], list(partitions)
    return [ok("slurm", f"{_partition(request)} can run this: {_asked(request)}.")], [*partitions]


def check_variables(environment: Mapping[str, str]) -> list[Check]:
    """Return a warning for variables that stand above what a job script says of itself."""
    found = [f"{name}={environment[name]}" for name in OVERRIDING if name in environment]
    if not found:
        return []
    names = " ".join(each.partition("=")[0] for each in found)
    told = f"{', '.join(found)} would override what the job script says, by sbatch's own rules."
    return [warning("slurm", told, f"ml-core submit leaves them out; for your own: unset {names}")]


def check_time(profile: Profile) -> list[Check]:
    """Return an error where the warning before the time limit leaves no time to work."""
    limit_s = fields.seconds(profile.time) or 0
    needed_s = 2 * profile.signal_s
    if limit_s < needed_s:
        told = f"a time limit of {profile.time}, and the job is told to save {profile.signal_s} s"
        told += f" before it (Slurm may be {EARLY_S} s earlier still)."
        return [error("time", told, f"Ask for {needed_s} s or more: --ask time=01:00:00")]
    return []


def node_names(partitions: Sequence[Partition]) -> set[str]:
    """Return the names of all machines of the cluster."""
    return {node.name for partition in partitions for node in partition.nodes}


def _partition(request: Request) -> str:
    return f"partition {request.partition}" if request.partition else "the default partition"


def _asked(request: Request) -> str:
    nodes = f"{request.nodes} nodes, each with " if request.nodes > 1 else ""
    memory = "" if request.mem_mb is None else f", {request.mem_mb / 1024:.3g} GB"
    kind = f" {request.gpu_type}" if request.gpu_type else ""
    gpus = f", {request.gpus} GPU{'s' * (request.gpus > 1)}{kind}" if request.gpus else ""
    time = "" if request.time_s is None else f", {fields.duration(request.time_s)}"
    return f"{nodes}{request.cpus} CPU{'s' * (request.cpus > 1)}{memory}{gpus}{time}"
