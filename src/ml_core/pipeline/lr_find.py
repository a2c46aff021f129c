"""The learning-rate range test: train a little with a rate that rises, and suggest one.

Reads the config and its train split; writes lr_find.json, lr_find.csv, lr_find.png and the config
into a folder of its own. The model is thrown away.

    ml-core train experiments/configs/pcam_cnn.yaml --lr-find
"""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml_core.config import Config
from ml_core.data.loader import Batch, PatchLoader
from ml_core.errors import TrainingError
from ml_core.evaluation.lr_plot import plot_range_test
from ml_core.log import progress, shown
from ml_core.page.figure_style import save_figure
from ml_core.pipeline.parts.data_gate import pass_gate
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import check_data, open_split
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.runs import RunDir, write_json, write_text
from ml_core.solver import Trainer
from ml_core.solver.lr_range_test import (
    RangeTest,
    Suggestion,
    has_diverged,
    learning_rates,
    smooth,
    suggest,
)

logger = logging.getLogger("ml_core.train")

LOWEST, HIGHEST = 1e-6, 1.0
NUM_STEPS = 160  # some 27 to a factor of ten
SPLITS = ("train",)


def lr_find(config: Config, *, command: str) -> dict[str, Any]:
    """Return {"status", "folder", "suggestion", "diverged_at"}; the suggestion may be None.

    The steps are those of a training by `config.seed`, but for the rate and its schedule.
    """
    if config.training.num_threads is not None:
        torch.set_num_threads(config.training.num_threads)
    device = choose_device(config.training.device)
    gate = pass_gate(config, SPLITS)
    check_data(config, SPLITS, gate.exclude, gate.hashes)
    name = f"lr-find-{dt.datetime.now():%Y%m%d-%H%M%S}"
    folder = RunDir.create(config.output_dir / config.experiment_name, name).path
    trainer, batches = build_trainer(config, open_split(config, "train", gate.exclude), device)
    test, diverged = _take_steps(trainer, batches, config.training.accumulate_steps)
    suggestion = suggest(test, diverged)
    write_text(folder / "config.yaml", config.dump_yaml())
    write_text(folder / "lr_find.csv", _as_csv(test))
    result = {"command": command, "num_steps": len(test.losses), **dataclasses.asdict(suggestion)}
    write_json(folder / "lr_find.json", result)
    save_figure(
        plot_range_test(
            test.learning_rates, test.losses, test.smoothed, dataclasses.asdict(suggestion)
        ),
        folder / "lr_find.png",
    )
    _say(config, suggestion, folder)
    return {
        "status": "completed",
        "folder": str(folder),
        "suggestion": suggestion.learning_rate,
        "diverged_at": suggestion.diverged_at,
    }


def _take_steps(
    trainer: Trainer, batches: PatchLoader, accumulate_steps: int
) -> tuple[RangeTest, bool]:
    """Return the curve up to where the loss diverges, and whether it does."""
    rates = learning_rates(LOWEST, HIGHEST, NUM_STEPS)
    losses: list[float] = []
    diverged = False
    groups = _endless_groups(trainer, batches, accumulate_steps)
    trainer.scheduler = None  # the rate is the test's
    trainer.model.train()
    for rate in progress(rates, total=len(rates), description="range test", unit="steps"):
        for group in trainer.optimizer.param_groups:
            group["lr"] = float(rate)
        try:
            losses.append(trainer.train_step(next(groups)))
        except TrainingError:
            losses.append(float("nan"))
        if diverged := has_diverged(losses):
            break
    done = len(losses)
    return RangeTest(rates[:done], np.array(losses), smooth(losses)), diverged


def _endless_groups(trainer: Trainer, batches: PatchLoader, size: int) -> Iterator[list[Batch]]:
    """Yield the batches of one step after the other, epoch after epoch, as training does."""
    epoch = 1
    while True:
        batches.batch_sampler.set_epoch(epoch)
        trainer.state.start_epoch(epoch)
        if trainer.augment is not None:
            trainer.augment.set_epoch(epoch)
        group: list[Batch] = []
        for batch in batches:
            group.append(batch)
            if len(group) == size:
                yield group
                group = []
        if group:
            yield group
        epoch += 1


def _as_csv(test: RangeTest) -> str:
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(["learning_rate", "loss", "smoothed_loss"])
    writer.writerows(zip(test.learning_rates, test.losses, test.smoothed, strict=True))
    return text.getvalue()


def _say(config: Config, suggestion: Suggestion, folder: Path) -> None:
    logger.info("range test in %s", shown(folder))
    if suggestion.diverged_at is not None:
        logger.info("the loss diverges at a learning rate of %.2g", suggestion.diverged_at)
    if suggestion.learning_rate is None:
        logger.warning("no rate is suggested: %s.", suggestion.reason)
        return
    logger.info("suggested learning rate: %.2g, %s", suggestion.learning_rate, suggestion.reason)
    logger.info("try it with: --set optimizer.lr=%.2g", suggestion.learning_rate)
    schedule = config.scheduler.name
    if schedule in ("one_cycle", "cosine"):
        logger.info("(%s: optimizer.lr is its highest rate)", schedule)
