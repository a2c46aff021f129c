"""The training loop, in the order of its life: steps, epochs, validation, checkpoints, resume.

Whatever is random is a function of (seed, epoch, position): the order and the augmentation by the
loader and `augment`, dropout by a seed set before each batch. So a checkpoint holds no random
state, and a resumed run ends in the same bits as one that was never stopped.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ml_core.checkpoint import Checkpoint, load_optimizer_state, save_checkpoint
from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch, EpochBatches
from ml_core.errors import TrainingError
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.predictor import predict
from ml_core.findings import Finding
from ml_core.log import progress
from ml_core.models import PatchClassifier, model_spec
from ml_core.reproducibility import Stream, derive_seed
from ml_core.solver.gradients import gradient_norms
from ml_core.solver.interrupt import StopRequest
from ml_core.solver.watch import check_learning, explain_non_finite, find_dead_units
from ml_core.tracking import ExperimentTracker

logger = logging.getLogger("ml_core.train")

LOGGED_METRICS = (
    "loss", "accuracy", "precision", "recall", "specificity", "f1", "f2", "roc_auc", "pr_auc",
)  # fmt: skip
OnEpoch = Callable[[int, Mapping[str, float]], bool]
DEAD_UNIT_PATCHES = 512  # of the validation split, looked at after each epoch


@dataclass(frozen=True)
class TrainerSettings:
    """What the loop needs to know; the meaning of each is in docs/config.md under `training`."""

    epochs: int = 1
    seed: int = 42
    best_metric: str = "val_roc_auc"
    early_stopping_patience: int | None = None
    clip_grad_norm: float | None = None
    accumulate_steps: int = 1
    label_smoothing: float = 0.0
    precision: str = "fp32"
    channels_last: bool = False

    @classmethod
    def from_course(cls, config: Mapping[str, Any]) -> TrainerSettings:
        """Read the course's nested dict; keys the loop does not know are the course's own."""
        known = {f.name for f in fields(cls)}
        training = {k: v for k, v in config.get("training", {}).items() if k in known}
        return cls(**{"seed": config.get("seed", 42), **training})


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
    """How `fit` ended: status is completed, stopped_early, pruned or interrupted."""

    status: str
    state: TrainState
    findings: list[Finding] = field(default_factory=list)
    val_metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch


class Trainer:
    """Trains `model` on batches of (images, labels) or `Batch`.

    `config` is `TrainerSettings`, or the course's dict, from which `training.epochs` and `seed` are
    read. Without a `tracker` the first thing to be written makes a run directory under
    `training.save_dir` (experiments/results, as in the course). `on_epoch` is asked after every
    epoch, with its number and its val_* metrics, whether to stop: the status is then pruned.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainerSettings | Mapping[str, Any],
        device: torch.device | str = "cpu",
        *,
        scheduler: LRScheduler | ReduceLROnPlateau | None = None,
        augment: Augmenter | None = None,
        tracker: ExperimentTracker | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        course = {} if isinstance(config, TrainerSettings) else dict(config)
        self.settings = (
            config if isinstance(config, TrainerSettings) else TrainerSettings.from_course(config)
        )
        self.device = torch.device(device)
        self.model = model.to(self.device)
        if self.settings.channels_last:  # torch's stubs know memory_format only beside a dtype
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.augment = augment
        self.criterion = nn.CrossEntropyLoss(
            reduction="none", label_smoothing=self.settings.label_smoothing
        )
        self.state = TrainState()
        self.findings: list[Finding] = []
        self.first_batch: dict[str, Any] = {}
        self._course = course
        self._tracker = tracker
        self._on_epoch = on_epoch
        self._stop = StopRequest()

    # ---- the whole training ------------------------------------------------------------------

    def fit(self, train_loader: Iterable[Any], val_loader: Iterable[Any]) -> FitResult:
        """Train to the last epoch, or until the best metric stops rising, or until interrupted.

        After every epoch: one validation pass, one line in metrics.jsonl, one checkpoint. Raises
        TrainingError at the first loss or gradient that is not finite; no weight was changed by it.
        """
        settings, state = self.settings, self.state
        status, metrics = "completed", dict[str, float]()
        with self._stop as stop:
            while state.epoch <= settings.epochs:
                if self._has_lost_patience():  # it had, before it was killed
                    status = "stopped_early"
                    break
                started, patches_before = time.perf_counter(), state.patches
                self._train_batches(train_loader)
                if stop:
                    self._save(best=False)
                    status = "interrupted"
                    break
                train_s = time.perf_counter() - started
                rate = (state.patches - patches_before) / train_s
                predictions = self.predict(val_loader, f"epoch {state.epoch} valid")
                metrics = predictions.metrics()
                self._watch(predictions, val_loader)
                is_best = self._finish_epoch(metrics, rate, time.perf_counter() - started)
                if isinstance(self.scheduler, ReduceLROnPlateau):
                    self.scheduler.step(metrics["loss"])
                state.start_epoch(state.epoch + 1)
                self._save(best=is_best)
                if self._is_pruned(state.epoch - 1, metrics):
                    status = "pruned"
                    break
                if self._has_lost_patience():
                    status = "stopped_early"
                    break
                if stop:
                    status = "interrupted" if state.epoch <= settings.epochs else status
                    break
        return FitResult(status, state, self.findings, metrics)

    def _finish_epoch(self, metrics: dict[str, float], rate: float, seconds: float) -> bool:
        """Log the epoch that just ended; return whether it is the best so far."""
        state, train = self.state, self.state.train_metrics()
        value = metrics[self.settings.best_metric.removeprefix("val_")]
        is_best = self._is_better(value)
        if is_best:
            state.best_value, state.best_epoch, state.epochs_since_best = value, state.epoch, 0
        else:
            state.epochs_since_best += 1
        record = {
            "train_loss": train["loss"],
            "train_accuracy": train["accuracy"],
            **{f"val_{name}": metrics[name] for name in LOGGED_METRICS},
            "learning_rate": self._learning_rate(),
            "train_patches_per_s": rate,
            "seconds": seconds,
        }
        self.tracker.log_metrics(state.epoch, record, step=state.step)
        logger.info(
            "epoch %d/%d  train loss %.4f  val loss %.4f  ROC-AUC %.4f  accuracy %.4f  F1 %.4f  "
            "%.0f patches/s  %.0f s%s",
            state.epoch, self.settings.epochs, train["loss"], metrics["loss"], metrics["roc_auc"],
            metrics["accuracy"], metrics["f1"], rate, seconds, "  best" if is_best else "",
        )  # fmt: skip
        return is_best

    def _has_lost_patience(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and self.state.epochs_since_best >= patience

    def _is_pruned(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Ask whoever searches; the last epoch is asked as well, so that it is reported."""
        if self._on_epoch is None:
            return False
        stop = self._on_epoch(epoch, {f"val_{name}": value for name, value in metrics.items()})
        return stop and epoch < self.settings.epochs

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.state.best_value is None:
            return True
        lower_is_better = self.settings.best_metric == "val_loss"
        best = self.state.best_value
        return value < best if lower_is_better else value > best

    def _watch(self, predictions: Predictions, val_loader: Iterable[Any]) -> None:
        """Renew the findings about learning; a new one is said at once."""
        first = next(_batches(val_loader)).images[:DEAD_UNIT_PATCHES]
        dead = find_dead_units(self.model, first.to(self.device))
        known = {finding.id for finding in self.findings}
        self.findings = check_learning(
            predictions.labels, predictions.y_prob, predictions.nll, dead
        )
        for finding in self.findings:
            if finding.id not in known:
                logger.warning("after epoch %d: %s", self.state.epoch, finding.message)

    # ---- one epoch ---------------------------------------------------------------------------

    def train_epoch(
        self, dataloader: Iterable[Any], epoch_idx: int = 1
    ) -> tuple[float, float, float]:
        """Train one pass over `dataloader`; return (loss, accuracy, F1) over its patches."""
        self.state.start_epoch(epoch_idx)
        self._train_batches(dataloader)
        metrics = self.state.train_metrics()
        return metrics["loss"], metrics["accuracy"], metrics["f1"]

    def validate(self, dataloader: Iterable[Any], epoch_idx: int = 1) -> tuple[float, float, float]:
        """Return (loss, accuracy, F1) over the patches of `dataloader`; nothing is trained."""
        metrics = self.predict(dataloader, f"epoch {epoch_idx} valid").metrics()
        return metrics["loss"], metrics["accuracy"], metrics["f1"]

    def predict(self, dataloader: Iterable[Any], description: str = "valid") -> Predictions:
        """Return the predictions for `dataloader`, one pass, in its order."""
        total = _num_batches(dataloader)
        return predict(
            self.model,
            progress(_batches(dataloader), total=total, description=description),
            self.device,
            precision=self.settings.precision,
            split="valid",
        )

    def _train_batches(self, loader: Iterable[Any]) -> None:
        """Take the optimizer steps of the epoch that are still to do, until done or stopped."""
        state, settings = self.state, self.settings
        _start_at(loader, state.epoch, state.batch)
        if self.augment is not None:
            self.augment.set_epoch(state.epoch)
        description = f"epoch {state.epoch} train"
        bar = progress(_batches(loader), total=_num_batches(loader), description=description)
        self.model.train()
        for group in _grouped(bar, settings.accumulate_steps):
            if not self.first_batch:
                self._describe_first(group[0])
            self.train_step(group)
            if self._stop:
                break

    def train_step(self, group: Sequence[Batch]) -> float:
        """Take one optimizer step on the mean loss over all patches of `group`; return that loss.

        Raises TrainingError, with no weight changed, where loss or gradient are not finite.
        """
        state, settings = self.state, self.settings
        started = time.perf_counter()
        num_patches = sum(len(batch.labels) for batch in group)
        loss_sum = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for offset, batch in enumerate(group):
            torch.manual_seed(
                derive_seed(settings.seed, Stream.DROPOUT, state.epoch, state.batch + offset)
            )
            images = batch.images.to(self.device, non_blocking=True)
            labels = batch.labels.to(self.device, non_blocking=True)
            if self.augment is not None:
                images = self.augment(images, batch.index)
            with self._autocast():
                logits = self.model(images)  # (B, 2)
            losses = self.criterion(logits.float(), labels)  # (B,)
            loss = losses.sum() / num_patches
            batch_sum = float(losses.detach().sum())
            if not math.isfinite(batch_sum):
                self._refuse_non_finite(images, batch, batch_sum)
            loss.backward()
            loss_sum += batch_sum
            self._count(logits, labels)
        norm, layer_norms = gradient_norms(self.model)
        if not math.isfinite(grad_norm := float(norm)):
            self._refuse_non_finite(images, group[-1], loss_sum / num_patches)
        if settings.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.model.parameters(), settings.clip_grad_norm, norm
            )
        learning_rate = self._learning_rate()
        self.optimizer.step()
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        state.step += 1
        state.batch += len(group)
        state.patches += num_patches
        state.loss_sum += loss_sum
        if self._tracker is not None:
            values = {
                "loss": loss_sum / num_patches,
                "learning_rate": learning_rate,
                "grad_norm": grad_norm,
                "patches_per_s": num_patches / (time.perf_counter() - started),
            }
            self._tracker.log_step(state.step, values, epoch=state.epoch)
            self._tracker.log_gradients(state.step, layer_norms, epoch=state.epoch)
        return loss_sum / num_patches

    def _count(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        called, state = logits.detach().argmax(dim=1), self.state
        state.correct += int((called == labels).sum())
        state.true_positives += int(((called == 1) & (labels == 1)).sum())
        state.false_positives += int(((called == 1) & (labels == 0)).sum())
        state.false_negatives += int(((called == 0) & (labels == 1)).sum())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16"
        )

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _refuse_non_finite(self, images: torch.Tensor, batch: Batch, loss: float) -> None:
        index = np.asarray(batch.index).tolist()
        step = self.state.step + 1
        with self._autocast():  # the forward pass is run again, as it was but for dropout
            reason = explain_non_finite(self.model, images, index, loss=loss, step=step)
        raise TrainingError(
            f"training stopped at the first value that is not finite, epoch {self.state.epoch}, "
            f"{reason}. No weight was changed by this step. Look at these patches, lower "
            "optimizer.lr, or set training.clip_grad_norm."
        )

    def _describe_first(self, batch: Batch) -> None:
        """Say once what the model is about to be fed, before the first step."""
        images, labels = batch.images, batch.labels
        self.first_batch = {
            "shape": list(images.shape),
            "dtype": str(images.dtype).removeprefix("torch."),
            "low": float(images.min()),
            "high": float(images.max()),
            "positives": int(labels.sum()),
            "patches": len(labels),
            "device": str(self.device),
        }
        logger.info(
            "first batch: %s %s in %g..%g, %d of %d tumour, to %s",
            tuple(images.shape), self.first_batch["dtype"], self.first_batch["low"],
            self.first_batch["high"], self.first_batch["positives"], len(labels), self.device,
        )  # fmt: skip

    # ---- checkpoints -------------------------------------------------------------------------

    @property
    def tracker(self) -> ExperimentTracker:
        """The tracker; the course's use, which gives none, gets one when it first writes."""
        if self._tracker is None:
            base_dir = self._course.get("training", {}).get("save_dir", "experiments/results")
            name = self._course.get("experiment_name", "run")
            self._tracker = ExperimentTracker(name, self._course, base_dir)
        return self._tracker

    def save_checkpoint(self, epoch: int, val_loss: float) -> Path:
        """Save weights, optimizer and state as the checkpoint `last`; return its directory."""
        logger.info("checkpoint after epoch %d, val loss %.4f", epoch, val_loss)
        return self._save(best=False)

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`: the next step is the one that would have followed it."""
        self.model.load_state_dict(checkpoint.model_state)
        load_optimizer_state(self.optimizer, checkpoint.optimizer_state)
        self.state = TrainState(**checkpoint.state["train"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(checkpoint.state["scheduler"])
        self.first_batch = checkpoint.state["first_batch"]
        self.findings = [Finding(**finding) for finding in checkpoint.state["findings"]]
        self.tracker.truncate(self.state.step, self.state.epoch)

    def _save(self, *, best: bool) -> Path:
        self.tracker.flush()  # the logs never lack a step that a checkpoint has
        spec = model_spec(self.model) if isinstance(self.model, PatchClassifier) else {}
        return save_checkpoint(
            self.tracker.run.checkpoints_dir,
            self.state.step,
            model=self.model,
            model_spec=spec,
            optimizer=self.optimizer,
            state={
                "train": asdict(self.state),
                "scheduler": self.scheduler.state_dict() if self.scheduler else None,
                "first_batch": self.first_batch,
                "findings": [asdict(finding) for finding in self.findings],
                "num_threads": torch.get_num_threads(),
            },
            best=best,
        )


def _batches(loader: Iterable[Any]) -> Iterator[Batch]:
    """Yield batches; those of the course, (images, labels), get the running number of each row."""
    rows = 0
    for batch in loader:
        if isinstance(batch, Batch):
            yield batch
        else:
            images, labels = batch
            yield Batch(images, labels, torch.arange(rows, rows + len(labels)))
            rows += len(labels)


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of up to `size` batches."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _num_batches(loader: Iterable[Any]) -> int | None:
    """Return how many batches `loader` will give, if it can tell."""
    return len(loader) if isinstance(loader, Sized) else None


def _start_at(loader: Iterable[Any], epoch: int, batch: int) -> None:
    """Tell a loader of ours which epoch comes and which batches of it are done."""
    sampler = getattr(loader, "batch_sampler", None)
    if isinstance(sampler, EpochBatches):
        sampler.set_epoch(epoch, start_batch=batch)
