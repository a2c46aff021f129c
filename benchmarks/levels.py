"""What each level of numerics costs: the same training steps in fast, elastic and portable.

    python benchmarks/levels.py DATA_DIR [--threads 1 2] [--micro-batch 32] [--out results.json]

Both recipes of experiments/configs, as `ml-core train` builds them: real batches, augmentation,
dropout, optimizer, logs and the chain. All levels take the same steps in alternation; a ratio is
the median over the rounds of one level's time by that of `fast` in fp32 in the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ml_core.config import Config
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.reproducibility import hardware_record, prepare_numerics
from ml_core.runs import RunDir
from ml_core.tracking import ExperimentTracker
from ml_core.tracking.chain import Chain

CONFIGS = Path(__file__).resolve().parents[1] / "experiments" / "configs"
STEPS = {"mlp": 40, "cnn": 10}
LEVELS = {
    "fast fp32": ("fast", "fp32"),
    "fast bf16": ("fast", "bf16"),
    "elastic fp32": ("elastic", "fp32"),
    "elastic bf16": ("elastic", "bf16"),
    "portable": ("portable", "auto"),
}
BARS = {"elastic fp32": 1.10, "portable": 5.0}


def measure(recipe: str, arguments: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Return milliseconds a step and ratios of every level, for one recipe and team of threads."""
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            name: _steps(recipe, *level, arguments, threads, Path(folder) / name)
            for name, level in LEVELS.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in LEVELS}
        for number in range(arguments.rounds + 1):
            for name, take in steps.items():
                started = time.perf_counter()
                take()
                if number > 0:  # the first round warms up
                    seconds[name].append((time.perf_counter() - started) / STEPS[recipe])
    ratios = {
        name: [a / b for a, b in zip(values, seconds["fast fp32"], strict=True)]
        for name, values in seconds.items()
    }
    bf16 = [a / b for a, b in zip(seconds["elastic bf16"], seconds["fast bf16"], strict=True)]
    return {
        "recipe": recipe,
        "threads": threads,
        "ms_per_step": {n: round(1e3 * statistics.median(v), 1) for n, v in seconds.items()},
        "over_fast_fp32": {n: round(statistics.median(v), 3) for n, v in ratios.items()},
        "elastic_bf16_over_fast_bf16": round(statistics.median(bf16), 3),
        "bars": BARS,
    }


def _steps(
    recipe: str,
    level: str,
    precision: str,
    arguments: argparse.Namespace,
    threads: int,
    folder: Path,
) -> Callable[[], None]:
    """Return what takes the last steps of an epoch with a training of its own."""
    config = Config.load(
        CONFIGS / f"pcam_{recipe}.yaml",
        [
            f"data.data_path={arguments.data}",
            f"training.numerics={level}",
            f"training.precision={precision}",
            f"training.num_threads={threads}",
            f"training.micro_batch={arguments.micro_batch}",
        ],
    )
    prepare_numerics(level, threads, "cpu")
    run = RunDir.create(folder.parent, folder.name)
    trainer, batches = build_trainer(
        config,
        open_split(config, "train", {}),
        torch.device("cpu"),
        tracker=ExperimentTracker(recipe, {}, run=run),
        chain=Chain(run.chain_path),
    )
    first = batches.batch_sampler.num_batches - STEPS[recipe]

    def take() -> None:
        torch.set_num_threads(threads)
        trainer.state.start_epoch(1)
        trainer.state.batch = first
        trainer._train_batches(batches)

    return take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of PCam files")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = [
        measure(recipe, arguments, threads) for recipe in STEPS for threads in arguments.threads
    ]
    document = {
        "machine": hardware_record(), "micro_batch": arguments.micro_batch, "results": results,
    }  # fmt: skip
    print(json.dumps(document, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
