"""The numerics fingerprint: level, libraries, instruction set, thread team, variables, GPU."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from typing import Any

from ml_core.reproducibility.compile_cache import VARIABLE, named_cache
from ml_core.reproducibility.hardware import gpu_record
from ml_core.reproducibility.processor import (
    onednn_instruction_set,
    processor_facts,
    processor_name,
)
from ml_core.reproducibility.variables import onednn_cap, set_variables


def numerics_record(
    level: str,
    num_threads: int,
    device: str,
    ranks: int = 1,
    micro_batch: int | None = None,
) -> dict[str, Any]:
    """Return everything that could change a bit of a training, for `numerics` in run.json.

    `num_threads` of each rank; `micro_batch` is kept where the level cuts batches into them. Of
    the environment only the names in `variables.VARIABLES` are read. Call it after
    `prepare_numerics`: it records what that has set.
    """
    record: dict[str, Any] = {
        "level": level,
        "num_threads": num_threads,
        "device": device,
        "ranks": ranks,
        "micro_batch": None if level == "fast" else micro_batch,
        "libraries": _library_versions(),
        "processor": _processor(),
        "flags": _flags(),
        "variables": _variables(),
    }
    if device.startswith("cuda"):
        _, _, index = device.partition(":")
        record["gpu"] = gpu_record(int(index or 0))
    return record


def _variables() -> dict[str, str]:
    """Return the variables that the user set, but for a folder that torch itself chose."""
    variables = set_variables(os.environ)
    if named_cache(os.environ) is None:
        variables.pop(VARIABLE, None)
    return variables


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the record with a dotted key per value: {"libraries.mkl": "2024.2", ...}."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _library_versions() -> dict[str, str | None]:
    """Return the versions of what computes: torch and the libraries that are built into it."""
    import torch

    built = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version (\S+?)-Product Build (\d+)", built)
    onednn = re.search(r"MKL-DNN v(\S+) \(Git Hash (\w{8})", built)
    return {
        "torch": str(torch.__version__),
        "mkl": ".".join(mkl.groups()) if mkl else None,
        "onednn": "-".join(onednn.groups()) if onednn else None,
        "libc": "-".join(platform.libc_ver()) or None,  # whose libm gives log and cos
        "python": platform.python_version(),
    }


def _processor() -> dict[str, str | None]:
    import torch

    facts = processor_facts()
    return {
        "name": processor_name(facts),
        "vendor": facts.get("vendor_id"),  # by which MKL chooses its kernels
        "architecture": platform.machine(),
        "aten": torch.backends.cpu.get_cpu_capability(),
        "onednn": onednn_instruction_set(facts, onednn_cap(os.environ)),
    }


def _flags() -> dict[str, bool | str]:
    """Return the switches of torch by which it takes other kernels."""
    import torch

    backends: Any = torch.backends  # torch's stubs lack some of what is asked of it
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": bool(backends.mkldnn.enabled),
        "cudnn_benchmark": backends.cudnn.benchmark,
        "cudnn_deterministic": backends.cudnn.deterministic,
        "float32_onednn": _or_ieee(backends.mkldnn.matmul.fp32_precision),
        "float32_cublas": _or_ieee(backends.cuda.matmul.fp32_precision),
        "float32_cudnn": _or_ieee(backends.cudnn.conv.fp32_precision),
    }


def _or_ieee(precision: str) -> str:
    """Return the precision in which float32 is computed; "none" is torch's word for its default."""
    return "ieee" if precision == "none" else precision
