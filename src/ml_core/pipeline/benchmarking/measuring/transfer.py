"""How fast batches get from the host to the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ml_core.config import Config
from ml_core.pipeline.benchmarking.figures import Rate, Transfer
from ml_core.pipeline.benchmarking.measuring.device_faults import faults_told
from ml_core.pipeline.benchmarking.measuring.timing import rate_of


def measure_transfer(config: Config, device: torch.device, *, budget_s: float) -> Transfer | None:
    """Return how fast the images of a batch get to `device`; None for a CPU, where they are.

    From ordinary memory, and from memory that is pinned to its place, of which a GPU reads by
    itself; `budget_s` for each. Raises ConfigError where the device gives up.
    """
    if device.type == "cpu":
        return None
    channels, height, width = config.data.input_shape
    size = (config.data.batch_size, height, width, channels)
    with faults_told("a batch", device):
        images = torch.randint(0, 256, size, dtype=torch.uint8)
        return Transfer(
            pageable=_rate(images, device, budget_s),
            pinned=_rate(images.pin_memory(), device, budget_s) if device.type == "cuda" else None,
            bytes_per_patch=images[0].nbytes,
        )


def _rate(images: Tensor, device: torch.device, budget_s: float) -> Rate:
    there = torch.empty(images.shape, dtype=images.dtype, device=device)

    def copy() -> int:
        there.copy_(images, non_blocking=True)
        return len(images)

    return rate_of(copy, device=device, budget_s=budget_s)
