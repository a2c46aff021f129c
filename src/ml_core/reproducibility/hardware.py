"""What this process runs on: processor, cores, memory, GPU and its driver."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

from ml_core.reproducibility.processor import processor_facts, processor_name

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def hardware_record() -> dict[str, Any]:
    """Return what this process runs on: processor, cores, threads, memory, GPU, numerics."""
    import torch

    return {
        "hostname": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor_name(processor_facts()),
        "cores_available": _num_cores(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **gpu_record(0),
    }


def gpu_record(index: int) -> dict[str, Any]:
    """Return {"gpu": {name, memory_gib, capability, driver}, "cuda", "cudnn"}, or {"gpu": None}."""
    import torch

    if not torch.cuda.is_available():
        return {"gpu": None}
    device = torch.cuda.get_device_properties(index)
    gpu = {
        "name": device.name,
        "memory_gib": round(device.total_memory / 2**30, 1),
        "capability": f"{device.major}.{device.minor}",
        "driver": nvidia_driver(),
    }
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"gpu": gpu, "cuda": torch.version.cuda, "cudnn": cudnn}


def nvidia_driver(file: Path = NVIDIA_DRIVER) -> str | None:
    """Return the version of NVIDIA's kernel module, or None where there is none."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)", text)
    return found.group(1) if found else None


def _num_cores() -> int:
    """Return the cores this process may use, which Slurm makes fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
