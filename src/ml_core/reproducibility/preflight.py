"""Before the first step: set what a level needs, refuse by name what it cannot honour."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ml_core.errors import ConfigError
from ml_core.reproducibility.compile_cache import named_cache, refuse_foreign_cache

# Either makes cuBLAS deterministic over streams (cuBLAS, "Results reproducibility"); torch no
# longer asks for it, so nobody else will notice that it is missing.
CUBLAS_WORKSPACES = (":4096:8", ":16:8")

_TRUE = ("true", ".true.", "t", "yes", "on", "1")


def prepare_numerics(level: str, num_threads: int | None, device: str) -> None:
    """Make this process compute as `level` promises; call it before anything is computed.

    Threads, deterministic kernels, and TF32 and the cuBLAS workspace of a GPU are set, for the
    whole process; `num_threads` None keeps torch's own number. Raises ConfigError naming the
    variable or setting that stands in the way.
    """
    import torch

    _refuse_uncertain_teams(level, num_threads or torch.get_num_threads())
    _set_threads(num_threads or torch.get_num_threads())
    _set_deterministic()
    refuse_foreign_cache(named_cache(os.environ))
    if device.startswith("cuda"):
        _set_cublas_workspace()
        _set_float32(level, os.environ)


def _refuse_uncertain_teams(level: str, num_threads: int) -> None:
    """Raise ConfigError where the environment can give a team of other than `num_threads`."""
    limit = os.environ.get("OMP_THREAD_LIMIT", "").strip()
    if limit.isdecimal() and int(limit) < num_threads:
        raise ConfigError(
            f"OMP_THREAD_LIMIT is {limit}, but this run computes with {num_threads} threads: "
            "convolutions would wait for the missing ones for ever. Unset OMP_THREAD_LIMIT, or "
            f"set training.num_threads to at most {limit}."
        )
    if os.environ.get("OMP_MAX_ACTIVE_LEVELS", "").strip() == "0" and num_threads > 1:
        raise ConfigError(
            f"OMP_MAX_ACTIVE_LEVELS is 0, which leaves 1 of the {num_threads} threads that this "
            "run computes with. Unset it, or set training.num_threads to 1."
        )
    for name in ("OMP_DYNAMIC", "MKL_DYNAMIC"):
        value = os.environ.get(name, "")
        if value.strip().lower() in _TRUE and level != "portable":
            raise ConfigError(
                f"{name} is {value}: the number of threads would change with the load of the "
                f"machine, and with it the bits, which training.numerics: {level} promises. "
                f"Unset {name} or set it to false, or set training.numerics to portable."
            )


def _set_threads(num_threads: int) -> None:
    """Fix the team, and with it MKL's: torch also switches MKL's own choice of a number off."""
    import torch

    torch.set_num_threads(num_threads)
    if torch.get_num_threads() != num_threads:
        raise ConfigError(
            f"training.num_threads is {num_threads}, but torch {torch.__version__} computes with "
            f"{torch.get_num_threads()} here. Set training.num_threads to that."
        )


def _set_deterministic() -> None:
    """Choose deterministic kernels; an operation without one then raises instead of varying."""
    import torch

    # As use_deterministic_algorithms(True), which imports the compiler to tell it: 1.5 s.
    torch.set_deterministic_debug_mode("error")
    # A debugging aid that writes all memory twice. torch's stubs do not know it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # it chooses kernels by their time
    torch.backends.cudnn.deterministic = True


def _set_cublas_workspace() -> None:
    """Set CUBLAS_WORKSPACE_CONFIG, which cuBLAS reads once, or raise where it is too late."""
    import torch

    name, allowed = "CUBLAS_WORKSPACE_CONFIG", " or ".join(CUBLAS_WORKSPACES)
    value = os.environ.get(name)
    if value is None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise ConfigError(
            f"{name} was not set before CUDA was started, and now it is too late: products may "
            f"differ from run to run. Set it to {allowed} and start again."
        )
    if value is not None and value not in CUBLAS_WORKSPACES:
        raise ConfigError(
            f"{name} is {value}, with which products may differ from run to run. Set it to "
            f"{allowed}, or unset it."
        )
    os.environ[name] = value or CUBLAS_WORKSPACES[0]


def _set_float32(level: str, environment: Mapping[str, str]) -> None:
    """Let float32 be float32 on a GPU, but for fast, where TF32 is torch's or the user's choice."""
    import torch

    if level == "fast":
        return
    for name in ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"):
        if environment.get(name, "0") != "0":
            raise ConfigError(
                f"{name} is {environment[name]}, which makes float32 TF32: 10 bits instead of 23. "
                f"training.numerics: {level} needs them. Unset {name}, or set training.numerics "
                "to fast."
            )
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
