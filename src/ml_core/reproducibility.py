"""Randomness as a function of (seed, epoch, index), and the record of what could change a number.

No random state is carried from step to step: what is drawn for a patch depends on its index alone,
so the number of workers, a resume or another batch size cannot change it.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
from enum import IntEnum
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WORDS_PER_ROW = 4  # one block of Philox4x64 per patch


class Stream(IntEnum):
    """What the words are drawn for; streams never share words."""

    ORDER = 1
    AUGMENT = 2
    DROPOUT = 3
    INIT = 4
    SYNTHETIC = 5
    BOOTSTRAP = 6
    FOLDS = 7
    PROBE = 8
    WITNESS = 9


def philox_words(seed: int, epoch: int, stream: Stream, num_rows: int) -> npt.NDArray[np.uint64]:
    """Return raw random words, shape (num_rows, 4); row i depends on (seed, epoch, stream, i) only.

    The words are numpy's Philox4x64-10 output, which NEP 19 keeps stable between releases; the
    distributions numpy derives from them are not, so callers use integer arithmetic.
    """
    counter = [0, 0, epoch, int(stream)]
    generator = np.random.Philox(key=seed, counter=counter)
    return generator.random_raw(num_rows * WORDS_PER_ROW).reshape(num_rows, WORDS_PER_ROW)


def derive_seed(seed: int, stream: Stream, *position: int) -> int:
    """Return a 63-bit seed for one consumer, for example dropout at (epoch, step)."""
    counter = [0, *([0] * (2 - len(position))), *position, int(stream)]
    return int(np.random.Philox(key=seed, counter=counter).random_raw(1)[0] >> np.uint64(1))


def seed_everything(seed: int) -> int:
    """Seed random, numpy's legacy generator and torch (all devices); return the seed."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change a result, by name."""
    names = ["ml-core", "torch", "numpy", "h5py", "scikit-learn", "pandas", "pyarrow", "pillow"]
    names += ["safetensors", "pydantic", "matplotlib", "mlflow", "optuna", "scipy"]
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware_record() -> dict[str, Any]:
    """Return what this process runs on: processor, cores, threads, memory, GPU, numerics."""
    import torch

    record: dict[str, Any] = {
        "hostname": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor_name(),
        "cores_available": _num_cores(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": None,
    }
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        record["gpu"] = {"name": device.name, "memory_gib": round(device.total_memory / 2**30, 1)}
        record["cuda"] = torch.version.cuda
    return record


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            for line in cpuinfo:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _num_cores() -> int:
    """Return the cores this process may use, which Slurm makes fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def code_record() -> tuple[dict[str, Any], str]:
    """Return which code runs, and its difference from the commit (empty when there is none).

    The commit is that of the repository this package lies in; an installed copy has none.
    """
    folder = Path(__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    tracked = _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
    if commit is None or tracked is None:
        return {"commit": None, "dirty": None, "why": "git knows no commit of the package"}, ""
    # Whatever the user's git is set to, `git apply` must take the diff.
    plain = ("--no-ext-diff", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
    diff = _git(folder, "diff", *plain, "HEAD", "--", ":/") or ""
    untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "--", ".") or ""
    names = untracked.splitlines()
    return {"commit": commit.strip(), "dirty": bool(diff or names), "untracked": names}, diff


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")  # as bytes first: text mode would drop "\r"
