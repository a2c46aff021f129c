"""How fast this machine trains and validates a config: a few steps of the real thing, timed.

What is timed is what an epoch does: reading, augmenting, the step and its log, with the reader
processes and threads of the config. The first step is not: it starts the readers, and the libraries
choose their ways. Where there is only one it is timed all the same, and the rate too low.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ml_core.config import Config
from ml_core.data.loader import Batch, PatchLoader
from ml_core.data.patch_file import Rows
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import inference_loader, open_split
from ml_core.pipeline.parts.training_parts import build_trainer

ENOUGH_S = 2.0  # of timed work: the last digits of an estimate of hours do not matter
MOST_STEPS = 50


@dataclass(frozen=True)
class Throughput:
    """What was measured; a rate is None where no whole step could be taken."""

    num_train: int  # patches that an epoch draws
    num_valid: int
    patches_per_s: float | None
    valid_patches_per_s: float | None
    timed_steps: int

    def seconds(self, epochs: int) -> float | None:
        """Return how long `epochs` take, training and validation; None where a rate is missing."""
        if self.patches_per_s is None or self.valid_patches_per_s is None:
            return None
        epoch_s = self.num_train / self.patches_per_s + self.num_valid / self.valid_patches_per_s
        return epochs * epoch_s

    def in_words(self, epochs: int) -> str:
        """Return the arithmetic of `seconds`, with its result."""
        total_s = self.seconds(epochs)
        if total_s is None:
            return "not known: the data are less than one step"
        return (
            f"{epochs} epochs x ({self.num_train:,} patches / {self.patches_per_s:,.0f} per s + "
            f"{self.num_valid:,} to validate / {self.valid_patches_per_s:,.0f} per s) "
            f"= {total_s:,.0f} s"
        )


def measure_throughput(config: Config, exclude: Mapping[str, Rows]) -> Throughput:
    """Take the first steps of a training of `config`, and predict the first patches of valid.

    Nothing is written. `exclude`: rows of each split to leave out.
    """
    config = config.with_overrides(["training.checkpoint_every=null"])  # there is no run to save in
    device = choose_device(config.training.device)
    train_set, valid_set = (open_split(config, split, exclude) for split in ("train", "valid"))
    trainer, batches = build_trainer(config, train_set, device)
    steps = _Timed(batches, lambda: trainer.state.step, device)
    trainer.train_epoch(steps)
    valid = _Timed(inference_loader(config, valid_set, device, again=True), None, device)
    trainer.predict(valid)
    return Throughput(
        num_train=len(batches.batch_sampler.labels),
        num_valid=len(valid_set),
        patches_per_s=steps.rate,
        valid_patches_per_s=valid.rate,
        timed_steps=steps.num_timed,
    )


class _Timed:
    """The first batches of a loader, until enough of them are timed.

    A batch is done when the next one is asked for, or, with `num_steps`, the batches of a step
    when that number has risen.
    """

    def __init__(
        self, loader: PatchLoader, num_steps: Callable[[], int] | None, device: torch.device
    ) -> None:
        self.batch_sampler = loader.batch_sampler  # told its epoch by the trainer
        self.num_timed = 0
        self._loader = loader
        self._num_steps = num_steps
        self._device = device
        self._patches = 0  # of the timed steps
        self._seconds = 0.0

    @property
    def rate(self) -> float | None:
        """Patches per second of what was timed."""
        return self._patches / self._seconds if self._patches else None

    def __iter__(self) -> Iterator[Batch]:
        started, is_first = self._now(), True
        patches = num_batches = num_done = 0
        for batch in self._loader:
            yield batch
            patches += len(batch.labels)
            num_batches += 1
            done = self._num_steps() if self._num_steps else num_batches
            if done == num_done:
                continue  # a step takes several batches
            num_done, now = done, self._now()
            self._patches, self._seconds = patches, now - started
            if is_first:
                started, patches, is_first = now, 0, False
                continue
            self.num_timed += 1
            if self._seconds >= ENOUGH_S or self.num_timed >= MOST_STEPS:
                return

    def _now(self) -> float:
        if self._device.type == "cuda":  # which is told its work and not waited for
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def as_json(found: Throughput, epochs: int) -> dict[str, Any]:
    """Return what `--json` shows of it, and how long a seed trains where nothing stops it early."""
    seconds = found.seconds(epochs)
    return {
        "num_train": found.num_train,
        "num_valid": found.num_valid,
        "patches_per_s": _rounded(found.patches_per_s),
        "valid_patches_per_s": _rounded(found.valid_patches_per_s),
        "timed_steps": found.timed_steps,
        "estimated_s": _rounded(seconds),
        "estimate": found.in_words(epochs),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
