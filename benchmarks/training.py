"""How much of the compute is lost to reading: training end to end against one batch in memory.

    python benchmarks/training.py [--out results.json]

Both sides take the same optimizer steps with the same Trainer, augmentation and logging; one reads
shuffled batches from a mapped file of 20,000 patches, the other is handed the same batch each time.
They run in alternation. "bare" is the step alone: forward, backward, update, nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from ml_core.data.augment import Augmenter
from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.data.pcam import PCAMDataset
from ml_core.models import build_model
from ml_core.reproducibility import hardware_record
from ml_core.runs import RunDir
from ml_core.solver import Trainer
from ml_core.solver.optim import build_optimizer
from ml_core.solver.settings import TrainerSettings
from ml_core.tracking import ExperimentTracker

NUM_PATCHES = 20_000
CASES = {
    "mlp": {"model": {"hidden_units": [128, 64]}, "batch_size": 64, "steps": 100, "bf16": False},
    "cnn": {"model": {}, "batch_size": 64, "steps": 20, "bf16": True},
}
BARS = {"mlp": 0.90, "cnn": 0.95}


def write_patches(folder: Path) -> PCAMDataset:
    """Write a mapped file of random patches; what they show does not matter to the time."""
    rng = np.random.default_rng(0)
    paths = split_paths(folder, "train")
    with h5py.File(paths.x, "w") as file:
        x = file.create_dataset("x", (NUM_PATCHES, 96, 96, 3), dtype="uint8")
        for start in range(0, NUM_PATCHES, 1000):
            x[start : start + 1000] = rng.integers(0, 256, (1000, 96, 96, 3), dtype=np.uint8)
    with h5py.File(paths.y, "w") as file:
        file["y"] = (np.arange(NUM_PATCHES) % 2).astype("uint8").reshape(-1, 1, 1, 1)
    return PCAMDataset(paths.x, paths.y)


def measure(name: str, dataset: PCAMDataset, folder: Path, rounds: int) -> dict[str, object]:
    """Return the medians and the ratio of one model, in patches per second."""
    case = CASES[name]
    steps, batch_size = case["steps"], case["batch_size"]
    model = build_model(name, **case["model"])
    optimizer = build_optimizer(model, "adamw", lr=1e-3, weight_decay=0.01)
    trainer = Trainer(
        model,
        optimizer,
        TrainerSettings(epochs=1, precision="bf16" if case["bf16"] else "fp32", channels_last=True),
        augment=Augmenter(0, NUM_PATCHES),
        tracker=ExperimentTracker("benchmark", {}, run=RunDir.create(folder, name)),
    )
    loader = build_loader(dataset, batch_size, shuffle=True, balanced=True)
    batch = next(iter(loader))
    first = loader.batch_sampler.num_batches - steps

    def end_to_end() -> None:
        trainer.state.start_epoch(1)
        trainer.state.batch = first  # the last `steps` batches of an epoch
        trainer._train_batches(loader)

    def in_memory() -> None:
        trainer.state.start_epoch(1)
        trainer._train_batches([batch] * steps)

    def bare() -> None:
        loss_function = torch.nn.CrossEntropyLoss()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case["bf16"]):
                logits = model(batch.images)
            loss_function(logits.float(), batch.labels).backward()
            optimizer.step()

    sides = {"end_to_end": end_to_end, "in_memory": in_memory, "bare": bare}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, run in sides.items():
            started = time.perf_counter()
            run()
            if number > 0:  # the first round warms up
                rates[side].append(steps * batch_size / (time.perf_counter() - started))
    medians = {side: round(statistics.median(values)) for side, values in rates.items()}
    ratios = [a / b for a, b in zip(rates["end_to_end"], rates["in_memory"], strict=True)]
    return {
        "patches_per_s": medians,
        "end_to_end_over_in_memory": round(statistics.median(ratios), 3),
        "end_to_end_over_bare": round(medians["end_to_end"] / medians["bare"], 3),
        "bar": BARS[name],
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        dataset = write_patches(Path(name))
        results = {case: measure(case, dataset, Path(name), args.rounds) for case in CASES}
    document = {"hardware": hardware_record(), "results": results}
    print(json.dumps(results, indent=2))
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
