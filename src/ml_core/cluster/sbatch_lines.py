"""What sbatch reads of a job script: its #SBATCH lines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.profile import Profile
from ml_core.cluster.slurm import fields
from ml_core.errors import ClusterError

# sbatch ends a word of such a line at a space, and takes quotes and # for its own. Of the shell's
# ways to say otherwise it knows the quotes, and a backslash within them only (22.05, measured).
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]-]*")


@dataclass(frozen=True)
class Shape:
    """How much a job takes: what it was asked with, else what the profile says."""

    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: str | None  # "4", or "a100:4"
    mem_per_node_mb: int | None  # None where memory goes by core, or is left to the cluster
    time_limit: str  # "HH:MM:SS"

    @classmethod
    def of(cls, request: JobRequest, profile: Profile) -> Shape:
        """Multiply what one task takes by the tasks of a node."""
        tasks = request.tasks_per_node or profile.tasks_per_node
        mem_mb = request.mem_mb
        if mem_mb is None and profile.mem_gb is not None:
            mem_mb = math.ceil(profile.mem_gb * 1024)
        return cls(
            nodes=request.nodes or profile.nodes,
            tasks_per_node=tasks,
            cpus_per_task=request.cpus or profile.cpus_per_task,
            gpus_per_node=_times(request.gpus or profile.gpus, tasks),
            mem_per_node_mb=None if mem_mb is None else mem_mb * tasks,
            time_limit=profile.time if request.time_s is None else _clock(request.time_s),
        )


def render_sbatch_lines(request: JobRequest, profile: Profile) -> str:
    """Return the #SBATCH lines, one option each, those of the profile's `sbatch` last.

    Raises ClusterError where the warning comes before half of the time is over.
    """
    shape = Shape.of(request, profile)
    _check_warning(shape.time_limit, profile.signal_s)
    options: dict[str, str | int | None] = {
        "job-name": request.name,
        "output": request.log_pattern,
        "open-mode": "append",  # a requeued job would empty its log
        "chdir": str(request.folder),
        "export": "NONE",  # what the login shell has set is not what a job needs
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": ",".join(profile.exclude) or None,
        "nodes": shape.nodes,
        "ntasks-per-node": shape.tasks_per_node,
        "cpus-per-task": shape.cpus_per_task,
        "gpus-per-node": shape.gpus_per_node,
        **_memory(shape, request, profile),
        "time": shape.time_limit,
        **_waiting(request),
        # To the steps, not to bash; Slurm looks every 30 s or so, and may be 60 s early.
        "signal": f"USR1@{profile.signal_s}",
    }
    lines = [
        f"--{name}={_word(str(value))}" for name, value in options.items() if value is not None
    ]
    lines.append("--requeue" if is_requeued(request, profile) else "--no-requeue")
    lines += [_word(option) for option in profile.sbatch]
    return "\n".join(f"#SBATCH {line}" for line in lines)


def is_requeued(request: JobRequest, profile: Profile) -> bool:
    """Return whether the job is started again after a time limit, preemption or lost node."""
    return profile.requeue if request.requeue is None else request.requeue


def _memory(shape: Shape, request: JobRequest, profile: Profile) -> dict[str, str | int | None]:
    if shape.mem_per_node_mb is not None:
        return {"mem": f"{shape.mem_per_node_mb}M"}
    if profile.mem_per_cpu_gb is not None and request.mem_mb is None:
        return {"mem-per-cpu": f"{math.ceil(profile.mem_per_cpu_gb * 1024)}M"}
    return {}


def _waiting(request: JobRequest) -> dict[str, str | int | None]:
    """Return the options of arrays and of jobs that wait for others."""
    options: dict[str, str | int | None] = {}
    if request.array_arguments:
        at_once = f"%{request.array_at_once}" if request.array_at_once else ""
        options["array"] = f"0-{len(request.array_arguments) - 1}{at_once}"
    if request.after:
        options["dependency"] = ":".join(["afterok", *request.after])
        options["kill-on-invalid-dep"] = "yes"  # else it waits for ever when the other one failed
    return options


def _times(gpus: str | None, tasks: int) -> str | None:
    """Return the GPUs of `tasks` tasks: "a100:1" times 4 is "a100:4"."""
    if gpus is None:
        return None
    kind, colon, number = gpus.rpartition(":")
    return f"{kind}{colon}{int(number) * tasks}"


def _clock(seconds: int) -> str:
    """Return "HH:MM:SS", rounded up to a whole minute, as Slurm does; hours may exceed a day."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def _check_warning(time_limit: str, signal_s: int) -> None:
    limit_s = fields.seconds(time_limit)
    assert limit_s is not None, "a profile's time has this form"
    if limit_s < 2 * signal_s:
        raise ClusterError(
            f"time limit {time_limit}: the job is told to save {signal_s} s before it, and has "
            f"less than half of the time to work. Ask for at least {2 * signal_s} s, or lower "
            "signal_s in the profile."
        )


def _word(value: str) -> str:
    """Return `value` as sbatch reads it back from an #SBATCH line."""
    if PLAIN.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
