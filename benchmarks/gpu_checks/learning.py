"""How long the recipe trains until its valid ROC-AUC is 0.94.

Counted are the seconds of `Trainer.fit`, with validation, logs and checkpoints, and before that
those of opening the data, which puts them on the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.recipe import load_recipe
from ml_core.data.synthetic import write_synthetic
from ml_core.pipeline.parts.splits import inference_loader, open_split
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.runs import RunDir
from ml_core.tracking import ExperimentTracker

WANTED = 0.94


def check(asked: Asked, answer: Answer) -> None:
    patches = "real" if asked.data_dir else "drawn"
    data_dir = asked.data_dir or draw(asked, asked.scratch / "drawn")
    placement = "file" if asked.is_tiny else "gpu"
    config = load_recipe(asked, data_dir, f"data.placement={placement}", "training.precision=auto")
    aucs: list[float] = []

    def note(epoch: int, metrics: Mapping[str, float]) -> bool:
        """Tell how far it is; return whether that is far enough, or time is up."""
        seconds = time.perf_counter() - started
        aucs.append(round(metrics["val_roc_auc"], 4))
        is_there = aucs[-1] >= WANTED
        rate = epoch * len(train_set) / seconds
        answer.note(valid_roc_auc=aucs, seconds=round(seconds, 2), patches_per_s=round(rate))
        answer.settle(
            "measured" if asked.is_tiny else "passed" if is_there else "failed",
            f"valid ROC-AUC {max(aucs):.4f} of {WANTED} after {seconds:.1f} s, {epoch} of "
            f"{config.training.epochs} epochs of {len(train_set):,} {patches} patches, "
            f"{rate:,.0f} patches/s with validation; {opening_s:.1f} s to open",
        )
        return is_there or asked.left_s < 0

    begun = time.perf_counter()
    train_set, valid_set = (open_split(config, split, {}) for split in ("train", "valid"))
    tracker = ExperimentTracker("learning", {}, run=RunDir.create(asked.scratch, "learning"))
    trainer, batches = build_trainer(
        config, train_set, asked.device, tracker=tracker, on_epoch=note
    )
    valid = inference_loader(config, valid_set, asked.device, again=True)
    started = time.perf_counter()
    opening_s = started - begun
    trainer.fit(batches, valid)


def draw(asked: Asked, folder: Path) -> Path:
    """Write drawn tissue to learn from, and return `folder`."""
    num_train, num_valid = (32, 16) if asked.is_tiny else (2000, 500)
    write_synthetic(folder, num_train, num_valid, num_test=2)
    return folder
