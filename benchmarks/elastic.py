"""What `training.numerics: elastic` costs on one rank: its optimizer step against that of `fast`.

    python benchmarks/elastic.py [--threads 1] [--rounds 9] [--out results.json]

Both take real steps on the same batch in memory: augmentation, dropout, forward, backward, clipping
and AdamW. They run in alternation, the smallest time of each counts: others on the machine can only
make a step longer. "sums" is the part of it that the sums in fixed point take.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch
from ml_core.distributed import ALONE
from ml_core.models import build_model
from ml_core.reproducibility import hardware_record
from ml_core.solver.optim import build_optimizer
from ml_core.solver.settings import TrainerSettings
from ml_core.solver.step import OptimizerStep, Position

NUM_ROWS = 20_000
MICRO_BATCHES = (8, 16, 32, 64, 128)
BAR = 1.10


@dataclass(frozen=True)
class Case:
    """A model as the configs of experiments/ have it."""

    model: str
    options: dict[str, Any]
    batch_size: int
    precision: str


CASES = {
    "mlp fp32": Case("mlp", {"hidden_units": [128, 64]}, 128, "fp32"),
    "cnn bf16": Case("cnn", {}, 64, "bf16"),
    "cnn fp32": Case("cnn", {}, 64, "fp32"),
}


class Step:
    """One side of the comparison: a model of its own and its optimizer step."""

    def __init__(self, case: Case, batch: Batch, numerics: str, micro_batch: int) -> None:
        model = build_model(case.model, **case.options).to(memory_format=torch.channels_last)
        self.batch = batch
        self.step = OptimizerStep(
            model,
            build_optimizer(model, "adamw", lr=1e-3, weight_decay=0.01),
            TrainerSettings(
                precision=case.precision,
                channels_last=True,
                clip_grad_norm=1.0,
                numerics=numerics,
                micro_batch=micro_batch,
            ),
            torch.device("cpu"),
            augment=Augmenter(0, NUM_ROWS),
            ranks=ALONE,
        )
        assert self.step.augment is not None
        self.step.augment.set_epoch(1)
        model.train()
        self.seconds: list[float] = []
        self.sum_seconds: list[float] = []
        self._time_sums()

    def _time_sums(self) -> None:
        """Have the time inside `add` and `finish` measured."""
        sums = self.step._sum
        for name in ("add", "finish"):
            setattr(sums, name, self._timed(getattr(sums, name)))

    def _timed(self, function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments)
            self.in_sums += time.perf_counter() - started
            return result

        return timed

    def take(self) -> None:
        self.in_sums, started = 0.0, time.perf_counter()
        self.step.take([self.batch], Position(1, 0, 1), len(self.batch.labels))
        self.seconds.append(time.perf_counter() - started)
        self.sum_seconds.append(self.in_sums)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of fast, and for each micro-batch the ratio to it."""
    images = torch.randint(0, 256, (case.batch_size, 96, 96, 3), dtype=torch.uint8)
    rows = torch.arange(case.batch_size)
    batch = Batch(images.permute(0, 3, 1, 2), rows % 2, rows)
    fast = Step(case, batch, "fast", case.batch_size)
    sizes = [size for size in MICRO_BATCHES if size <= case.batch_size]
    elastic = {size: Step(case, batch, "elastic", size) for size in sizes}
    for _ in range(rounds + 1):
        for side in (fast, *elastic.values()):
            side.take()
    base = min(fast.seconds[1:])  # the first step warms up
    return {
        "fast_ms": round(1e3 * base, 1),
        "micro_batch": {
            size: {
                "ratio": round(min(side.seconds[1:]) / base, 3),
                "sums": round(min(side.sum_seconds[1:]) / base, 3),
            }
            for size, side in elastic.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {name: measure(case, args.rounds) for name, case in CASES.items()}
    document = {"hardware": hardware_record(), "bar": BAR, "results": results}
    print(json.dumps(results, indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
