"""What an ended job used of what it asked for, in words, and what to ask for next time."""

from __future__ import annotations

import math

from ml_core.cluster.slurm import Usage
from ml_core.cluster.slurm.fields import duration, size

MB_PER_GB = 1024
# Slurm looks at a job's memory each half minute by default: of a shorter one it saw too little.
SEEN_ENOUGH_S = 10 * 60
SPARE = 1.25  # of memory and time; a run varies
MUCH_MEMORY_MB = 2 * MB_PER_GB  # unused; less than that keeps nobody waiting
MOST = 0.9  # of its memory: a little more and it is killed
LITTLE = 0.5
LONG_S = 3600  # a limit below an hour fits into most gaps of a schedule anyway


def used_of_asked(usage: Usage) -> str:
    """Return ``CPU 97 % of 2, memory 1.1 GB of 28 GB, GPU 12 %``, without what was not measured."""
    told = []
    if usage.cpu_efficiency is not None:
        told.append(f"CPU {_percent(usage.cpu_efficiency)} of {usage.cpus}")
    if usage.max_rss_mb is not None:
        asked = "" if usage.asked_mem_mb is None else f" of {size(usage.asked_mem_mb)}"
        told.append(f"memory {size(usage.max_rss_mb)}{asked}")
    if usage.gpus and usage.gpu_percent is not None:
        told.append(f"GPU {_percent(usage.gpu_percent / 100 / sum(usage.gpus.values()))}")
    return ", ".join(told)


def advise(usage: Usage, limit_s: int | None) -> list[str]:
    """Return what to ask for instead, as keys of a profile; nothing where it makes no difference.

    Only a job that ran to its end shows what it needs.
    """
    if usage.state != "COMPLETED":
        return []
    told = [_on_memory(usage), _on_cpus(usage), _on_gpus(usage), _on_time(usage, limit_s)]
    return [advice for advice in told if advice]


def _on_memory(usage: Usage) -> str | None:
    used, asked = usage.max_rss_mb, usage.asked_mem_mb
    if used is None or asked is None or usage.elapsed_s < SEEN_ENOUGH_S:
        return None
    enough = math.ceil(used * SPARE / usage.num_tasks / MB_PER_GB)  # mem_gb is of one task
    if used > MOST * asked:
        return f"used {size(used)} of {size(asked)}, nearly all: ask mem_gb={enough}"
    if used < LITTLE * asked and asked - used > MUCH_MEMORY_MB:
        return f"asked {size(asked)}, used {size(used)}: ask mem_gb={enough}"
    return None


def _on_cpus(usage: Usage) -> str | None:
    """GPUs come with their share of a node's cores, so that fewer cores would save nothing."""
    busy = usage.cpu_efficiency
    if busy is None or usage.gpus or usage.cpus < 2 or usage.elapsed_s < SEEN_ENOUGH_S:
        return None
    enough = math.ceil(usage.cpus * busy * SPARE / usage.num_tasks)
    if busy >= LITTLE or enough * usage.num_tasks >= usage.cpus:
        return None
    return (
        f"its {usage.cpus} cores worked {_percent(busy)} of the time: ask cpus_per_task={enough}, "
        "or give them work (data.num_workers)"
    )


def _on_gpus(usage: Usage) -> str | None:
    num = sum(usage.gpus.values())
    if not num or usage.gpu_percent is None or usage.elapsed_s < SEEN_ENOUGH_S:
        return None
    busy = usage.gpu_percent / num / 100
    if busy >= LITTLE:
        return None
    many = "its GPU was" if num == 1 else f"its {num} GPUs were"
    return (
        f"{many} busy {_percent(busy)} of the time: a larger data.batch_size or more "
        "data.num_workers may feed it better"
    )


def _on_time(usage: Usage, limit_s: int | None) -> str | None:
    if limit_s is None or limit_s <= LONG_S or usage.elapsed_s * 4 > limit_s:
        return None
    enough_s = max(LONG_S, math.ceil(usage.elapsed_s * SPARE / 600) * 600)
    return (
        f"took {duration(usage.elapsed_s)} of {duration(limit_s)}: "
        f"ask time={_clock(enough_s)}, since a shorter job starts sooner"
    )


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:00"


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"
