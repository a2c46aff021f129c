"""Several processes that train one model: which one this is, and how the others learn of the run.

Rank 0 checks the data, makes the run directory, writes and speaks. The others are told the
directory, build the same training from it, and share every step.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ml_core.config import Config
from ml_core.distributed import Ranks, process_group, ranks_from_environment
from ml_core.errors import ConfigError
from ml_core.pipeline.parts.device import choose_device, gpu_of_rank
from ml_core.runs import RunDir

logger = logging.getLogger("ml_core.train")


@dataclass(frozen=True)
class Invitation:
    """What rank 0 tells the others: which run, the checkpoint to go on from, if any, and `facts`.

    Those are `facts_here` of rank 0, with which the others compare their own.
    """

    run: RunDir
    checkpoint: Path | None
    facts: Mapping[str, Any]

    def to_text(self) -> str:
        name = self.checkpoint and self.checkpoint.name
        said = {"run": str(self.run.path.resolve()), "checkpoint": name, "facts": self.facts}
        return json.dumps(said)

    @classmethod
    def from_text(cls, text: str) -> Invitation:
        said = json.loads(text)
        run = RunDir.open(said["run"])
        name = said["checkpoint"]
        return cls(run, run.checkpoints_dir / name if name else None, said["facts"])


@contextmanager
def joined_ranks(config: Config) -> Iterator[Ranks]:
    """Join the ranks that torchrun or srun started, if they did; alone otherwise.

    Raises ConfigError for several ranks in `fast`, whose weights would depend on their number.
    """
    ranks = ranks_from_environment()
    training = config.training
    if ranks.world_size > 1 and training.numerics == "fast":
        raise ConfigError(
            f"{ranks.world_size} ranks were started, but training.numerics is fast: its sums of "
            "gradients would depend on the number of ranks. Set training.numerics to elastic, or "
            "start one process."
        )
    if not ranks.is_first:
        logging.getLogger("ml_core").setLevel(logging.WARNING)  # rank 0 says it for all
    elif ranks.world_size > 1:
        _say_who_is_idle(config, ranks.world_size)
    backend = "nccl" if choose_device(training.device).type == "cuda" else "gloo"
    if backend == "nccl" and ranks.world_size > 1:  # which takes the current GPU when it starts
        gpu = gpu_of_rank(training.device, ranks.local_rank, torch.cuda.device_count())
        torch.cuda.set_device(gpu)
    with process_group(ranks, timeout_s=training.rank_timeout_s, backend=backend) as joined:
        yield joined


def _say_who_is_idle(config: Config, world_size: int) -> None:
    """Warn of ranks that no batch has a micro-batch for."""
    micro_batch, batch_size = config.training.micro_batch, config.data.batch_size
    num_pieces = math.ceil(batch_size / micro_batch)
    if world_size > num_pieces:
        logger.warning(
            "%d ranks share batches of %d micro-batches (data.batch_size %d, training.micro_batch "
            "%d): %d of them will never train. Start %d, or fewer",
            world_size, num_pieces, batch_size, micro_batch, world_size - num_pieces, num_pieces,
        )  # fmt: skip
