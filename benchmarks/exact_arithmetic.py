"""What exact arithmetic costs: forward and backward of the default models, as ratios to fast fp32.

    python benchmarks/exact_arithmetic.py [--out results.json]

Every round runs all cases in turn, so that they share whatever else the machine is doing; the ratio
of a case is the median over the rounds. A fast batch goes through in one piece, an exact one in
micro-batches. Optimizer and data are left out: they cost the same in all of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml_core.models import build_model
from ml_core.numerics.arithmetic import arithmetic
from ml_core.numerics.keyed_dropout import keyed_dropout
from ml_core.reproducibility import hardware_record

MODELS = {
    "cnn": {"options": {}, "batch_size": 64},
    "mlp": {"options": {"input_shape": (3, 96, 96), "hidden_units": [128, 64]}, "batch_size": 128},
}
CASES = [("fp32", None), ("bf16", None), ("exact", 16), ("exact", 32), ("exact", 64)]
BAR = 5.0  # of exact in its default micro-batch, for the CNN


def step(model: nn.Module, images: Tensor, labels: Tensor, precision: str, size: int) -> None:
    """Compute the gradients of one batch, `size` patches at a time."""
    model.zero_grad(set_to_none=True)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        words = np.arange(len(images), dtype=np.uint64)[part]
        with arithmetic(precision, "cpu"), keyed_dropout(words, "cpu"):
            logits = model(images[part]).float()
        with arithmetic("exact" if precision == "exact" else "fp32", "cpu"):
            losses = F.cross_entropy(logits, labels[part], reduction="none")
            loss = losses.sum() / len(images)
        loss.backward()


def measure(name: str, threads: int, rounds: int) -> dict[str, object]:
    """Return seconds per step of fp32 and the ratio of each case to it."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_model(name, **MODELS[name]["options"])
    model = model.to(memory_format=torch.channels_last)
    batch_size = MODELS[name]["batch_size"]
    images = torch.randint(0, 256, (batch_size, 96, 96, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.arange(batch_size) % 2
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for precision, size in CASES:
            started = time.perf_counter()
            step(model, images, labels, precision, size or batch_size)
            if number > 0:  # the first round warms up
                case = precision if size is None else f"{precision}, micro-batch {size}"
                seconds.setdefault(case, []).append(time.perf_counter() - started)
    ratios = {
        case: statistics.median(a / b for a, b in zip(values, seconds["fp32"], strict=True))
        for case, values in seconds.items()
    }
    return {
        "fp32_s": round(min(seconds["fp32"]), 4),
        "over_fp32": {case: round(ratio, 2) for case, ratio in ratios.items()},
        "least_over_least": {
            case: round(min(values) / min(seconds["fp32"]), 2) for case, values in seconds.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    results: dict[str, object] = {
        f"{name}, {threads} threads": measure(name, threads, args.rounds)
        for name in MODELS
        for threads in (1, 2)
    }
    results["bar"] = BAR
    results["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(results, indent=2))
    if args.out is not None:
        document = {"hardware": hardware_record(), "results": results}
        args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
