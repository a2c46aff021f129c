"""Which GPU, versions and clocks there are, and which packages are missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import torch

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
OLDEST_TORCH = (2, 11)
# nvidia-smi --help-query-gpu
ASKED_OF_GPU = (
    "name", "driver_version", "memory.total", "memory.used", "mig.mode.current", "pstate",
    "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.limit", "utilization.gpu",
)  # fmt: skip


def check(asked: Asked, answer: Answer) -> None:
    found, missing = packages()
    answer.note(
        python=platform.python_version(), system=platform.platform(), torch=torch.__version__,
        cuda=torch.version.cuda, cores=len(os.sched_getaffinity(0)), load=os.getloadavg()[0],
        compiler=shutil.which("cc") or shutil.which("gcc"), packages=found, missing=missing,
    )  # fmt: skip
    there = what_is_there(asked, answer)
    has_torch = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= OLDEST_TORCH
    product = torch.ones(64, 64, device=asked.device) @ torch.ones(64, 64, device=asked.device)
    works = float(product.sum()) == 64.0**3
    answer.judge(
        works and has_torch,
        f"{there}, torch {torch.__version__}, Python {platform.python_version()}; missing: "
        f"{', '.join(missing) or 'nothing'}",
    )


def packages() -> tuple[dict[str, str], list[str]]:
    """Return the versions of what ml_core names as its dependencies, and those not installed."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=!~; \[]", line)[0] for line in project["dependencies"]]
    found, missing = {}, []
    for name in [*names, "pytest", "triton"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return found, missing


def what_is_there(asked: Asked, answer: Answer) -> str:
    """Note what the driver and torch say of the device; return it in words."""
    if asked.device.type != "cuda":
        return f"no GPU asked for, {os.cpu_count()} cores"
    properties = torch.cuda.get_device_properties(asked.device)
    free, total = torch.cuda.mem_get_info(asked.device)
    answer.note(
        name=properties.name,
        capability=f"{properties.major}.{properties.minor}",
        multiprocessors=properties.multi_processor_count,
        memory_bytes=total,
        free_bytes=free,
        cudnn=torch.backends.cudnn.version(),
        gpus=torch.cuda.device_count(),
        smi=ask_driver(f"--query-gpu={','.join(ASKED_OF_GPU)}", "--format=csv,noheader"),
        slices=ask_driver("-L"),
    )
    return f"{properties.name} with {free / 1e9:.0f} of {total / 1e9:.0f} GB free"


def ask_driver(*options: str) -> list[str]:
    """Return the lines of nvidia-smi; none where it is absent or does not answer."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
