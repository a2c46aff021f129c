"""The ways to compute a config's model: its own, and those that differ from it in one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import torch

from ml_core.config import Config
from ml_core.pipeline.benchmarking.figures import Layout, Precision, Variant, Work
from ml_core.pipeline.benchmarking.measuring.reading import num_cores
from ml_core.pipeline.parts.device import choose_precision

_PRECISIONS: tuple[Precision, ...] = tuple(
    each
    for each in get_args(Precision)
    if each != "exact"  # a promise, no way to be faster
)


def variants_of(config: Config, device: torch.device) -> list[Variant]:
    """Return the config's own way to compute first, then each change of one thing.

    Other precisions, the other memory layout, compiled, and on a CPU other numbers of threads: 1,
    2, 4 and so on to as many as there are cores. Those that cannot be had are among them:
    `why_not` and `measure_computing` say why. "fp32" is torch's own, as a training has it: on a GPU
    its convolutions are in TF32, its products not, unless a level of numerics forbids both.
    """
    layouts: tuple[Layout, Layout] = ("contiguous", "channels_last")
    own = Variant(
        device="cuda:0" if str(device) == "cuda" else str(device),
        precision=_precision(config, device),
        layout=layouts[config.training.channels_last],
        compiled=False,
        threads=config.training.num_threads or torch.get_num_threads(),
    )
    return [
        own,
        *(replace(own, precision=each) for each in _PRECISIONS if each != own.precision),
        replace(own, layout=layouts[not config.training.channels_last]),
        replace(own, compiled=True),
        *(replace(own, threads=each) for each in _numbers_of_threads(own)),
    ]


def why_not(work: Work, variant: Variant) -> str:
    """Return why `variant` cannot do `work` anywhere or on such a device; "" where it may."""
    if variant.precision == "tf32" and not variant.device.startswith("cuda"):
        return "TF32 is arithmetic of a GPU"
    if variant.precision in ("tf32", "fp16") and work == "train step":
        return f"no training is offered in {variant.precision}: it is measured for inference alone"
    if variant.compiled and work == "train step":
        return "no training is offered compiled: at dropout keyed by patch the compiler breaks off"
    if variant.compiled and variant.precision == "exact":
        return "exact arithmetic is not compiled: a compiler chooses the order of sums"
    return ""


def why_not_here(variant: Variant) -> str:
    """Return why this machine lacks what `variant` needs; it starts CUDA for a GPU."""
    is_cuda = variant.device.startswith("cuda")
    if is_cuda and variant.precision == "bf16" and not torch.cuda.is_bf16_supported(False):
        return f"{torch.cuda.get_device_name(variant.device)} has no bfloat16"
    if (
        is_cuda
        and variant.precision == "tf32"
        and torch.cuda.get_device_capability(variant.device) < (8, 0)
    ):
        return f"{torch.cuda.get_device_name(variant.device)} has no TF32"
    return ""


def _precision(config: Config, device: torch.device) -> Precision:
    name = choose_precision(config.training, device)
    return next(each for each in get_args(Precision) if each == name)


def _numbers_of_threads(own: Variant) -> list[int]:
    if own.device != "cpu":
        return []
    cores = num_cores()
    powers = {1 << power for power in range(cores.bit_length()) if 1 << power <= cores}
    return sorted((powers | {cores}) - {own.threads})
