"""Where a stage computes, and in which precision."""

from __future__ import annotations

import torch

from ml_core.config.training import TrainingConfig
from ml_core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; auto is the first GPU, or the CPU where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"training.device is {name}, but torch {torch.__version__} sees {count} GPUs here. "
                "Set it to auto or cpu, or run where there is a GPU (a login node has none)."
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("training.device is mps, which this machine lacks. Set it to auto.")
    return device


def gpu_of_rank(name: str, local_rank: int, num_gpus: int) -> int:
    """Return the GPU that a rank takes among the `num_gpus` it sees, for `training.device` `name`.

    Its number on its machine, so that ranks that see all GPUs take one each, and one that sees
    only its own takes that. Raises ConfigError where a GPU is named, which all would take.
    """
    if ":" in name:
        raise ConfigError(
            f"training.device is {name}, but several ranks were started, each of which takes a GPU "
            "of its own. Set it to cuda."
        )
    return local_rank % num_gpus


def choose_precision(training: TrainingConfig, device: torch.device) -> str:
    """Return fp32, bf16 or, for `numerics: portable`, exact; auto is bf16 on a GPU that has it.

    Raises ConfigError where this machine fails the known-answer test of exact arithmetic.
    """
    if training.numerics == "portable":
        from ml_core.numerics.exact.known_answer import check_exact

        check_exact(device)
        return "exact"
    if training.precision != "auto":
        return training.precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"
