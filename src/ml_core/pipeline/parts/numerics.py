"""Make this process compute as a config's level of numerics promises, or refuse."""

from __future__ import annotations

from typing import Any

import torch

from ml_core.config import Config
from ml_core.distributed import ALONE, Ranks
from ml_core.pipeline.parts.device import choose_device, choose_precision
from ml_core.reproducibility import numerics_record, prepare_numerics


def prepare(config: Config, num_threads: int | None, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Set what the config's level needs; return what the record of a run says of it.

    `num_threads` is what a run has had so far; None leaves it to the machine. Raises ConfigError
    naming the variable, or the operation, that stands in the level's way.
    """
    training = config.training
    device = choose_device(training.device)
    prepare_numerics(training.numerics, num_threads, str(device))
    choose_precision(training, device)  # portable is tried on this machine, once
    micro_batch = None if training.numerics == "fast" else training.micro_batch
    return numerics_record(
        training.numerics, torch.get_num_threads(), str(device), ranks.world_size, micro_batch
    )
