"""What a second rank brings: patches per second of one and of two ranks, each pinned to a core.

    python benchmarks/scaling.py [--rounds 9] [--out benchmarks/results/scaling.json]

Real optimizer steps of `elastic` on batches in memory, a global batch of the same size however many
ranks share it. Four sides take turns, the median of the rounds counts:

* one rank on one core;
* two ranks on a core each, over gloo on the loopback: what `srun --ntasks=2` does;
* two processes on a core each that know nothing of each other: what the cores themselves can give;
* one rank with two threads on both cores: what the second core is worth without a second rank.

"all_reduce_ms" is the sum of the gradients alone, all ranks being ready; "in_sum_ms" is how long a
step waits in it, for the slower rank too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch
from ml_core.distributed import ALONE, Ranks, process_group
from ml_core.models import build_model
from ml_core.reproducibility import hardware_record
from ml_core.solver.optim import build_optimizer
from ml_core.solver.settings import TrainerSettings
from ml_core.solver.step import OptimizerStep, Position

NUM_ROWS = 20_000
MICRO_BATCH = 32
BARE_SUMS = 20
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "cnn, batch 64": ("cnn", {}, 64),
    "cnn, batch 256": ("cnn", {}, 256),
    "mlp, batch 128": ("mlp", {"hidden_units": [128, 64]}, 128),
}


@dataclass(frozen=True)
class Side:
    """Processes of one way to train: the cores of each, and whether they train one model."""

    cores: tuple[tuple[int, ...], ...]
    together: bool = False


SIDES = {
    "1 rank": Side(((0,),)),
    "2 ranks": Side(((0,), (1,)), together=True),
    "2 strangers": Side(((0,), (1,))),
    "1 rank, 2 threads": Side(((0, 1),)),
}


class TimedLines:
    """The lines of a rank, with the time inside `sum_` and the bytes of the longest message."""

    def __init__(self, lines: Any) -> None:
        self._lines, self.seconds, self.message_bytes = lines, 0.0, 0

    def sum_(self, numbers: torch.Tensor) -> None:
        started = time.perf_counter()
        self._lines.sum_(numbers)
        self.seconds += time.perf_counter() - started
        self.message_bytes = max(self.message_bytes, 8 * numbers.numel())


def build_step(case: str, ranks: Ranks) -> tuple[OptimizerStep, Batch, int]:
    """Return the step of a case, this rank's part of its batch, and the patches of all ranks."""
    name, options, batch_size = CASES[case]
    torch.manual_seed(0)
    model = build_model(name, **options).to(memory_format=torch.channels_last)
    step = OptimizerStep(
        model,
        build_optimizer(model, "adamw", lr=1e-3, weight_decay=0.01),
        TrainerSettings(
            channels_last=True, clip_grad_norm=1.0, numerics="elastic", micro_batch=MICRO_BATCH
        ),
        torch.device("cpu"),
        augment=Augmenter(0, NUM_ROWS),
        ranks=ranks,
    )
    assert step.augment is not None
    step.augment.set_epoch(1)
    model.train()
    rows = torch.arange(batch_size)
    own = rows[rows // MICRO_BATCH % ranks.world_size == ranks.rank]
    images = torch.randint(0, 256, (len(own), 96, 96, 3), dtype=torch.uint8)
    return step, Batch(images.permute(0, 3, 1, 2), own % 2, own), batch_size


def work(case: str, cores: tuple[int, ...], ranks: Ranks, port: int, line: Connection) -> None:
    """Take as many steps as `line` says, each time it says so, and tell how long they took."""
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    meeting = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": str(ranks.world_size),
    }  # fmt: skip
    os.environ.update(meeting)
    with process_group(ranks, 60.0) as joined:
        timed: Any = TimedLines(joined._lines)
        if joined.world_size > 1:
            joined = replace(joined, _lines=timed)
        step, batch, num_patches = build_step(case, joined)
        while num_steps := line.recv():
            joined.wait() if joined.world_size == 1 else timed._lines.wait()
            timed.seconds, started = 0.0, time.perf_counter()
            for _ in range(num_steps):
                step.take([batch], Position(1, 0, 1), num_patches)
            seconds = time.perf_counter() - started
            in_sum = timed.seconds
            line.send((seconds, in_sum, _bare_sum(timed), timed.message_bytes))


def _bare_sum(timed: TimedLines) -> float:
    """Return the seconds of one sum of gradients when no rank has anything else to do."""
    if not timed.message_bytes:
        return 0.0
    numbers = torch.zeros(timed.message_bytes // 8, dtype=torch.int64)
    timed._lines.wait()
    started = time.perf_counter()
    for _ in range(BARE_SUMS):
        timed._lines.sum_(numbers)
    return (time.perf_counter() - started) / BARE_SUMS


class Crew:
    """The processes of one side, asleep until they are told to take steps."""

    def __init__(self, case: str, side: Side) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.side, self.lines, self.processes = side, [], []
        for number, cores in enumerate(side.cores):
            ranks = Ranks(number, len(side.cores), number) if side.together else ALONE
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(case, cores, ranks, port, theirs))
            process.start()
            self.lines.append(ours)
            self.processes.append(process)

    def take(self, num_steps: int) -> list[tuple[float, float, float, int]]:
        for line in self.lines:
            line.send(num_steps)
        return [line.recv() for line in self.lines]

    def leave(self) -> None:
        for line in self.lines:
            line.send(0)
        for process in self.processes:
            process.join()


def measure(case: str, rounds: int, num_steps: int) -> dict[str, Any]:
    """Return patches per second of each side and the ratios to one rank."""
    crews = {name: Crew(case, side) for name, side in SIDES.items()}
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    sums: list[tuple[float, float]] = []
    message_bytes = 0
    for number in range(rounds + 1):
        for name, crew in crews.items():
            told = crew.take(num_steps)
            if number == 0:
                continue  # the first round warms up
            models = 1 if crew.side.together else len(told)
            seconds = max(each[0] for each in told)
            rates[name].append(models * num_steps * CASES[case][2] / seconds)
            if crew.side.together:
                sums.append((told[0][1] / num_steps, told[0][2]))
                message_bytes = told[0][3]
    for crew in crews.values():
        crew.leave()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "patches_per_s": {name: round(rate, 1) for name, rate in medians.items()},
        "over_1_rank": {name: round(rate / medians["1 rank"], 3) for name, rate in medians.items()},
        "step_ms_of_2_ranks": round(1e3 * CASES[case][2] / medians["2 ranks"], 1),
        "in_sum_ms": round(1e3 * statistics.median(waited for waited, _ in sums), 2),
        "all_reduce_ms": round(1e3 * statistics.median(bare for _, bare in sums), 2),
        "message_mb": round(message_bytes / 1e6, 2),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("this needs two cores")
    results = {case: measure(case, args.rounds, args.steps) for case in CASES}
    print(json.dumps(results, indent=1))
    if args.out is not None:
        document = {"hardware": hardware_record(), "micro_batch": MICRO_BATCH, "results": results}
        args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
