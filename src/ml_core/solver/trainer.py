"""The training loop, in the order of its life: steps, epochs, validation, checkpoints, resume.

Whatever is random is a function of (seed, epoch, index): the order and the augmentation by the
loader and `augment`, dropout by the words of each patch. So a checkpoint holds no random state, and
a resumed run ends in the same bits as one that was never stopped.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ml_core.checkpoint import Checkpoint, load_optimizer_state, save_checkpoint
from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch
from ml_core.distributed import ALONE, Ranks
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.predictor import predict
from ml_core.evaluation.ranked_predictions import gather_predictions
from ml_core.findings import Finding
from ml_core.lease import Lease
from ml_core.log import progress
from ml_core.models import PatchClassifier, model_spec
from ml_core.numerics.state_hash import digest_state, training_state
from ml_core.solver.batches import (
    WholeBatches,
    batches_of,
    batches_to_come,
    grouped,
    num_batches_of,
)
from ml_core.solver.interrupt import StopRequest
from ml_core.solver.settings import TrainerSettings
from ml_core.solver.state import FitResult, TrainState
from ml_core.solver.step import OptimizerStep, Position
from ml_core.solver.watch import check_learning, find_dead_units
from ml_core.tracking import ExperimentTracker
from ml_core.tracking.chain import Chain

logger = logging.getLogger("ml_core.train")

LOGGED_METRICS = (
    "loss", "accuracy", "precision", "recall", "specificity", "f1", "f2", "roc_auc", "pr_auc",
)  # fmt: skip
OnEpoch = Callable[[int, Mapping[str, float]], bool]
DEAD_UNIT_PATCHES = 512  # of the validation split, looked at after each epoch


class _ToldToStopError(Exception):
    """Ends a validation that is given up."""


class Trainer:
    """Trains `model` on batches of (images, labels) or `Batch`.

    `config` is `TrainerSettings`, or the course's dict, from which `training.epochs` and `seed` are
    read. Without a `tracker` the first thing to be written makes a run directory under
    `training.save_dir` (experiments/results, as in the course). `on_epoch` is asked after every
    epoch, with its number and its val_* metrics, whether to stop: the status is then pruned.

    `ranks` share every step and every validation; the first of them writes. `chain` is told the
    batches of every step and the state every `chain_every` steps; `lease` says before each
    checkpoint and epoch line whether this is still the process that may write. `stop` is who has
    been listening for signals; by default `fit` does, while it runs.
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
        ranks: Ranks = ALONE,
        chain: Chain | None = None,
        lease: Lease | None = None,
        stop: StopRequest | None = None,
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
        self._step = OptimizerStep(
            self.model, optimizer, self.settings, self.device, augment=augment, ranks=ranks
        )
        self.ranks = ranks
        self.state = TrainState()
        self.findings: list[Finding] = []
        self.first_batch: dict[str, Any] = {}
        self._course = course
        self._tracker = tracker
        self._on_epoch = on_epoch
        self._chain = chain
        self._lease = lease
        self._stop = StopRequest() if stop is None else stop
        self._listens_itself = stop is None
        self._agreed_to_stop = False  # what all ranks know since the last step
        self._whole = WholeBatches((), ranks)  # of the loader that is trained on

    # ---- the whole training ------------------------------------------------------------------

    def fit(self, train_loader: Iterable[Any], val_loader: Iterable[Any]) -> FitResult:
        """Train to the last epoch, or until the best metric stops rising, or until interrupted.

        After every epoch: one validation pass, one line in metrics.jsonl, one checkpoint. A pass
        during which one is told to stop is given up, and made when the training goes on. Raises
        TrainingError at the first loss or gradient that is not finite; no weight was changed by it.
        """
        settings, state = self.settings, self.state
        status, metrics = "completed", dict[str, float]()
        with self._stop if self._listens_itself else contextlib.nullcontext():
            while state.epoch <= settings.epochs:
                if self._has_lost_patience():  # it had, before it was killed
                    status = "stopped_early"
                    break
                started, patches_before = time.perf_counter(), state.patches
                self._train_batches(train_loader)
                train_s = time.perf_counter() - started
                rate = (state.patches - patches_before) / train_s
                predictions = None if self._must_stop() else self._validate(val_loader)
                if predictions is None:
                    self._save(best=False)
                    status = "interrupted"
                    break
                metrics = predictions.metrics()
                self._watch(predictions, val_loader)
                self._link()
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
                if state.epoch <= settings.epochs and self.ranks.any(bool(self._stop)):
                    status = "interrupted"
                    break
            told = status == "interrupted" or self.ranks.any(bool(self._stop))
        return FitResult(status, state, self.findings, metrics, told)

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
        if not self.ranks.is_first:
            return is_best
        if self._lease is not None:
            self._lease.check()
        self.tracker.log_metrics(state.epoch, record, step=state.step)
        logger.info(
            "epoch %d/%d  train loss %.4f  val loss %.4f  ROC-AUC %.4f  accuracy %.4f  F1 %.4f  "
            "%.0f patches/s  %.0f s%s",
            state.epoch, self.settings.epochs, train["loss"], metrics["loss"], metrics["roc_auc"],
            metrics["accuracy"], metrics["f1"], rate, seconds, "  best" if is_best else "",
        )  # fmt: skip
        return is_best

    def _must_stop(self) -> bool:
        """Return whether training ends after this step; ranks end together, so a step later."""
        return bool(self._stop) if self.ranks.world_size == 1 else self._agreed_to_stop

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
        if not self.ranks.is_first:
            return
        first = next(batches_of(val_loader)).images[:DEAD_UNIT_PATCHES]
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

    def predict(self, dataloader: Any, description: str = "valid") -> Predictions:
        """Return the predictions for `dataloader`, one pass, in its order.

        Each rank predicts the batches that its loader gives it, and gets those of the others.
        """
        own = self._predict_own(dataloader, batches_of(dataloader), description)
        return self._gather(own, dataloader)

    def _validate(self, loader: Any) -> Predictions | None:
        """Return the predictions for `loader`; None where a rank was told to stop meanwhile."""
        description = f"epoch {self.state.epoch} valid"
        try:
            own = self._predict_own(loader, self._until_told(batches_of(loader)), description)
        except _ToldToStopError:
            own = None
        if self.ranks.any(bool(self._stop)):
            return None
        return self._gather(own, loader)

    def _until_told(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if self._stop:
                raise _ToldToStopError
            yield batch

    def _predict_own(
        self, loader: Any, batches: Iterable[Batch], description: str
    ) -> Predictions | None:
        """Return the predictions for this rank's `batches`; there may be fewer than ranks."""
        total = num_batches_of(loader)
        if total == 0:
            return None
        bar = progress(batches, total=total, description=description)
        return predict(
            self.model, bar, self.device, precision=self.settings.precision, split="valid"
        )

    def _gather(self, own: Predictions | None, loader: Any) -> Predictions:
        if self.ranks.world_size == 1:
            assert own is not None, "alone one predicts everything"
            return own
        return gather_predictions(own, len(loader.dataset), self.ranks)

    def _train_batches(self, loader: Iterable[Any]) -> None:
        """Take the optimizer steps of the epoch that are still to do, until done or stopped."""
        state, settings = self.state, self.settings
        self._whole = WholeBatches(loader, self.ranks)
        to_come = batches_to_come(loader, state.epoch, batches=state.batch, rows=state.patches)
        if self.augment is not None:
            self.augment.set_epoch(state.epoch)
        description = f"epoch {state.epoch} train"
        bar = progress(to_come, total=num_batches_of(loader), description=description)
        self.model.train()
        self._agreed_to_stop = False
        for group in grouped(bar, settings.accumulate_steps):
            if not self.first_batch and len(group[0].labels):
                self._describe_first(group[0])
            self.train_step(group)
            if self._must_stop():
                break
            if settings.checkpoint_every and state.step % settings.checkpoint_every == 0:
                self._save(best=False)

    def train_step(self, group: Sequence[Batch]) -> float:
        """Take one optimizer step on the mean loss over all patches of `group`; return that loss.

        Raises TrainingError, with no weight changed, where loss or gradient are not finite.
        """
        state, started = self.state, time.perf_counter()
        at = Position(state.epoch, state.batch, state.step + 1)
        learning_rate = self._learning_rate()
        num_patches = self._whole.num_patches(state.batch, group)
        took = self._step.take(group, at, num_patches, wants_stop=bool(self._stop))
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        self._note_batches(group)
        state.count_step(took.tallies, len(group))
        if state.step % self.settings.chain_every == 0:
            self._link()
        self._agreed_to_stop = took.tallies.wants_stop > 0
        if self._tracker is not None:
            values = {
                "loss": took.loss,
                "learning_rate": learning_rate,
                "grad_norm": took.grad_norm,
                "patches_per_s": took.tallies.patches / (time.perf_counter() - started),
            }
            self._tracker.log_step(state.step, values, epoch=state.epoch)
            self._tracker.log_gradients(state.step, took.layer_norms, epoch=state.epoch)
        return took.loss

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

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
        self._save(best=False)
        return (self.tracker.run.checkpoints_dir / "last").resolve()

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`: the next step is the one that would have followed it."""
        self.model.load_state_dict(checkpoint.model_state)
        load_optimizer_state(self.optimizer, checkpoint.optimizer_state)
        self.state = TrainState(**checkpoint.state["train"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(checkpoint.state["scheduler"])
        self.first_batch = checkpoint.state["first_batch"]
        self.findings = [Finding(**finding) for finding in checkpoint.state["findings"]]
        if self._lease is not None:
            self._lease.check()  # the logs of whoever took over must not be cut back
        if self._chain is not None:
            self._chain.start_from(checkpoint.state.get("chain"), self.state.step)
        if self.ranks.is_first:
            self.tracker.truncate(self.state.step, self.state.epoch - 1)

    def _save(self, *, best: bool) -> None:
        """Write the checkpoint `last` (and `best`), if this is the rank that writes."""
        if not self.ranks.is_first:
            return
        if self._lease is not None:
            self._lease.check()  # first: a log that another process replaced says less
        self.tracker.flush()  # the logs never lack a step that a checkpoint has
        if self._chain is not None:
            self._chain.flush()
        spec = model_spec(self.model) if isinstance(self.model, PatchClassifier) else {}
        save_checkpoint(
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
                "chain": self._chain.position() if self._chain is not None else None,
            },
            best=best,
            lease=self._lease,
        )

    # ---- the chain of states -----------------------------------------------------------------

    def _note_batches(self, group: Sequence[Batch]) -> None:
        if self._chain is None:
            return
        for number, batch in enumerate(group, start=self.state.batch):
            self._chain.note_batch(self._whole.index(number, batch))

    def _link(self) -> None:
        """Add the state after this step to the chain; a step that has its link keeps it."""
        if self._chain is not None:
            found = digest_state(training_state(self.model, self.optimizer))
            self._chain.link(self.state.step, self.state.epoch, found.state, found.tensors)
