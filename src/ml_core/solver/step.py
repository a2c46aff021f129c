"""One optimizer step: forward, backward and update over the patches of a group of batches.

In `fast` a batch goes through in one piece and autograd adds the gradients up. In `elastic` and
`portable` it is cut into micro-batches, whose gradients are added as integers: the sum is then the
same in any order and over any number of ranks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch
from ml_core.distributed import Ranks
from ml_core.errors import TrainingError
from ml_core.numerics.arithmetic import arithmetic
from ml_core.numerics.exact_optim import exact_clip_
from ml_core.numerics.fixed_point import on_grid
from ml_core.numerics.keyed_dropout import keyed_dropout
from ml_core.reproducibility import Stream, derive_seed
from ml_core.solver.buffers import (
    buffer_versions,
    refuse_changed_buffers,
    refuse_running_statistics,
)
from ml_core.solver.gradient_sum import FixedPointSum, PlainSum, Tallies
from ml_core.solver.gradients import gradient_norms
from ml_core.solver.patch_words import PatchWords
from ml_core.solver.settings import TrainerSettings
from ml_core.solver.watch import explain_non_finite

MICRO_BATCHES = 1 << 20  # more than a batch can have: batch and micro-batch make one number


@dataclass(frozen=True)
class Position:
    """Which step this is: the number of its epoch, of its first batch, and its own (from 1)."""

    epoch: int
    batch: int
    step: int


@dataclass(frozen=True)
class StepResult:
    """What a step gave, over all ranks: sums over its patches, and the norms of its gradients."""

    tallies: Tallies
    grad_norm: float
    layer_norms: dict[str, float]

    @property
    def loss(self) -> float:
        """The mean loss over the patches of the step."""
        return self.tallies.loss_sum / self.tallies.patches


@dataclass(frozen=True)
class _Seen:
    """A micro-batch as the model got it, and the sum of its losses."""

    images: Tensor
    index: Tensor
    loss: float


class OptimizerStep:
    """Takes optimizer steps with `model` on `device`; `ranks` share each step between them."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: TrainerSettings,
        device: torch.device,
        *,
        augment: Augmenter | None,
        ranks: Ranks,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.settings = settings
        self.device = device
        self.augment = augment
        self.ranks = ranks
        self.criterion = nn.CrossEntropyLoss(
            reduction="none", label_smoothing=settings.label_smoothing
        )
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._is_whole = settings.numerics == "fast"
        assert ranks.world_size == 1 or not self._is_whole, "fast adds no gradients of other ranks"
        if not self._is_whole:
            refuse_running_statistics(model, settings.numerics)
        self._sum: PlainSum | FixedPointSum
        self._sum = PlainSum() if self._is_whole else FixedPointSum(parameters, ranks)
        self._dropout_words = PatchWords(settings.seed)
        self._num_taken = 0

    def take(
        self, group: Sequence[Batch], at: Position, num_patches: int, *, wants_stop: bool = False
    ) -> StepResult:
        """Take the step on the mean loss over the `num_patches` that `group` holds on all ranks.

        `wants_stop` of any rank is in the tallies of all of them. Raises TrainingError, with no
        weight changed, where loss or gradient are not finite; ConfigError at the first step for a
        model whose buffers change by a forward pass, at a level that deals them out to ranks.
        """
        watched = not self._is_whole and self._num_taken == 0
        buffers = buffer_versions(self.model) if watched else {}
        self.optimizer.zero_grad(set_to_none=True)
        # The optimizer may have a part of the parameters only: a gradient that stayed from step to
        # step would count for the norm, until a resume forgets it.
        self.model.zero_grad(set_to_none=True)
        self._sum.start()
        tallies, seen, bad = Tallies(wants_stop=int(wants_stop)), None, None
        for number, batch in enumerate(group, start=at.batch):
            for micro_number, micro in self._cut(batch):
                torch.manual_seed(self._seed(at.epoch, number, micro_number))
                seen, is_finite = self._backward(micro, at.epoch, num_patches, tallies)
                if not is_finite:
                    bad = bad or seen
        if watched:
            refuse_changed_buffers(self.model, buffers, self.settings.numerics)
        tallies = self._sum.finish(tallies)
        if tallies.num_bad:
            raise self._not_finite(bad, at)
        norm, layer_norms = self._clip()
        if not math.isfinite(norm):
            raise self._not_finite(seen, at)
        self.optimizer.step()
        self._num_taken += 1
        return StepResult(tallies, norm, layer_norms)

    def arithmetic(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the model computes."""
        return arithmetic(self.settings.precision, self.device.type)

    def _cut(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """Yield this rank's micro-batches with their number within the batch of all ranks."""
        if self._is_whole:
            yield 0, batch
            return
        size = self.settings.micro_batch
        for own, start in enumerate(range(0, len(batch.labels), size)):
            rows = slice(start, start + size)
            micro = Batch(batch.images[rows], batch.labels[rows], batch.index[rows])
            yield self.ranks.rank + own * self.ranks.world_size, micro

    def _seed(self, epoch: int, batch: int, micro_batch: int) -> int:
        """Return the seed of whatever a model draws from torch itself."""
        number = batch * MICRO_BATCHES + micro_batch
        return derive_seed(self.settings.seed, Stream.DROPOUT, epoch, number)

    def _backward(
        self, micro: Batch, epoch: int, num_patches: int, tallies: Tallies
    ) -> tuple[_Seen, bool]:
        """Add the gradients and counts of one micro-batch; return it, and whether all is finite."""
        images = micro.images.to(self.device, non_blocking=True)
        labels = micro.labels.to(self.device, non_blocking=True)
        if self.augment is not None:
            images = self.augment(images, micro.index)
        words = self._dropout_words.of(epoch, np.asarray(micro.index))
        with self.arithmetic(), keyed_dropout(words, self.device):
            logits = self.model(images).float()  # (B, 2)
        with self._loss_arithmetic():
            loss = self.criterion(logits, labels).sum()
            mean_loss = loss / num_patches
        loss_sum = float(loss.detach())
        seen = _Seen(images, micro.index, loss_sum)
        if not math.isfinite(loss_sum):
            tallies.num_bad += 1
            return seen, False
        mean_loss.backward()
        _count(tallies, logits, labels, loss_sum if self._is_whole else on_grid(loss_sum))
        return seen, self._sum.add()

    def _loss_arithmetic(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of the loss: never bf16, whose eight bits would be felt here."""
        exact = self.settings.precision == "exact"
        return arithmetic("exact" if exact else "fp32", self.device.type)

    def _clip(self) -> tuple[float, dict[str, float]]:
        """Scale the gradients down if need be; return the norm they had, and that of each layer."""
        exact, limit = self.settings.precision == "exact", self.settings.clip_grad_norm
        norm, layer_norms = gradient_norms(self.model, exact=exact)
        if limit is not None and bool(norm.isfinite()):
            parameters = list(self.model.parameters())
            if exact:
                exact_clip_(parameters, limit)
            else:
                torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return float(norm), layer_norms

    def _not_finite(self, seen: _Seen | None, at: Position) -> TrainingError:
        """Return the error that names what of `seen`, this rank's first bad part, went bad."""
        if seen is None:
            return TrainingError(
                f"training stopped at step {at.step}, epoch {at.epoch}: another rank met a value "
                "that is not finite; its own message says which. No weight was changed."
            )
        # The forward pass is run again, as it was but for dropout; instead of exact arithmetic,
        # which knows no hooks, in fp32, where the same values overflow.
        precision = "bf16" if self.settings.precision == "bf16" else "fp32"
        with arithmetic(precision, self.device.type):
            reason = explain_non_finite(
                self.model, seen.images, seen.index.tolist(), loss=seen.loss, step=at.step
            )
        return TrainingError(
            f"training stopped at the first value that is not finite, epoch {at.epoch}, "
            f"{reason}. No weight was changed by this step. Look at these patches, lower "
            "optimizer.lr, or set training.clip_grad_norm."
        )


def _count(tallies: Tallies, logits: Tensor, labels: Tensor, loss_sum: float) -> None:
    """Add the patches of a micro-batch to `tallies`."""
    called = logits.detach().argmax(dim=1)
    tallies.patches += len(labels)
    tallies.loss_sum += loss_sum
    tallies.correct += int((called == labels).sum())
    tallies.true_positives += int(((called == 1) & (labels == 1)).sum())
    tallies.false_positives += int(((called == 1) & (labels == 0)).sum())
    tallies.false_negatives += int(((called == 0) & (labels == 1)).sum())
