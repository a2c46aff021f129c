"""Where a training stands, and how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ml_core.findings import Finding
from ml_core.solver.gradient_sum import Tallies


@dataclass
class TrainState:
    """Where training stands; all of it goes into every checkpoint."""

    epoch: int = 1  # the epoch in progress
    batch: int = 0  # batches of it that are done
    step: int = 0  # optimizer steps since the start
    best_value: float | None = None
    best_epoch: int | None = None
    epochs_since_best: int = 0
    # Sums over the patches of the epoch so far, so that a resumed epoch reports the whole epoch.
    loss_sum: float = 0.0
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    patches: int = 0
    correct: int = 0

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.batch = epoch, 0
        self.loss_sum, self.patches, self.correct = 0.0, 0, 0
        self.true_positives = self.false_positives = self.false_negatives = 0

    def count_step(self, tallies: Tallies, num_batches: int) -> None:
        """Note a step that was taken, on `num_batches` batches of the epoch."""
        self.step += 1
        self.batch += num_batches
        self.patches += tallies.patches
        self.loss_sum += tallies.loss_sum
        self.correct += tallies.correct
        self.true_positives += tallies.true_positives
        self.false_positives += tallies.false_positives
        self.false_negatives += tallies.false_negatives

    def train_metrics(self) -> dict[str, float]:
        """Return loss, accuracy and F1 over the patches trained on in this epoch so far."""
        called = 2 * self.true_positives + self.false_positives + self.false_negatives
        return {
            "loss": self.loss_sum / self.patches if self.patches else math.nan,
            "accuracy": self.correct / self.patches if self.patches else math.nan,
            "f1": 2 * self.true_positives / called if called else math.nan,
        }


@dataclass
class FitResult:
    """How `fit` ended: status is completed, stopped_early, pruned or interrupted.

    `told_to_stop`: whether a rank was, be it so late that there was nothing left to interrupt.
    """

    status: str
    state: TrainState
    findings: list[Finding] = field(default_factory=list)
    val_metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch
    told_to_stop: bool = False
