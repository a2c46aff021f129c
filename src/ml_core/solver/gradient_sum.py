"""The gradient of an optimizer step, added up over its backward passes and over the ranks.

sums.start()                    before the first backward pass
sums.add()                      after each backward pass; its gradient is in p.grad
tallies = sums.finish(tallies)  p.grad holds the whole gradient, on every rank the same bits
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml_core.distributed import ALONE, Ranks
from ml_core.errors import TrainingError
from ml_core.numerics.fixed_point import (
    LARGEST,
    MAX_TERMS,
    PIECE,
    UNITS,
    FixedPoint,
    fits,
    round_,
    to_units,
)
from ml_core.solver.flat_gradients import FlatGradients, Rows

COUNTED = ("patches", "correct", "true_positives", "false_positives", "false_negatives")
LARGEST_LOSS = float(1 << 17)  # of a step; floats add multiples of 2**-36 exactly below it


@dataclass
class Tallies:
    """What one rank saw of a step; after `finish`, what all ranks saw together.

    Sums of `loss_sum` are exact, and so the same over any ranks, when each micro-batch adds a
    multiple of 2**-36: `ml_core.numerics.fixed_point.on_grid` of its loss.
    """

    patches: int = 0
    correct: int = 0
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    loss_sum: float = 0.0
    num_bad: int = 0  # backward passes whose loss or gradient is not finite
    wants_stop: int = 0  # ranks that were asked to stop


class PlainSum:
    """Autograd adds up by itself, in float32: the bits depend on how a batch was cut."""

    def start(self) -> None:
        """Do nothing: zero_grad forgets the step before."""

    def add(self) -> bool:
        """Return True; a gradient that is not finite is seen by its norm."""
        return True

    def finish(self, tallies: Tallies) -> Tallies:
        """Return `tallies`: there is one rank."""
        return tallies


class FixedPointSum:
    """Adds gradients as int64 multiples of 2**-36: no order of adding, and no rank, is felt.

    The gradient of the newest backward pass waits as it is, so that a step of a single pass needs
    no second copy of the gradients.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._gradients = FlatGradients(list(parameters))
        self._sizes = self._gradients.sizes
        # a GPU gains nothing from pieces
        self._device = self._gradients.device
        self._piece = PIECE if self._device.type == "cpu" else max(self._sizes)
        self._fixed = FixedPoint(min(self._piece, max(self._sizes)), self._device)
        self._sent: Tensor | None = None  # made when a second pass, or rank, is met
        self.start()

    def start(self) -> None:
        """Forget the step before."""
        self._waiting: Rows | None = None
        self._num_summed = 0  # passes whose gradients are in the message
        self._used = [0] * len(self._gradients.parameters)
        self._num_bad = self._num_too_large = 0

    def add(self) -> bool:
        """Take the gradient of a backward pass out of p.grad; return whether it is finite.

        One that is not, or that holds a number of 2**16 or more, is left out, and `finish` tells
        every rank of it.
        """
        used, rows = self._gradients.used(), self._gradients.take()
        if not all(fits(row) for row in rows):
            is_finite = all(bool(row.isfinite().all()) for row in rows)
            self._num_too_large += is_finite
            self._num_bad += not is_finite
            return is_finite
        if self._waiting is not None:
            self._sum_up(self._waiting)
        self._waiting = rows
        self._used = [max(pair) for pair in zip(self._used, used, strict=True)]
        return True

    def finish(self, tallies: Tallies) -> Tallies:
        """Put the whole gradient into p.grad and return the tallies of all ranks.

        `num_bad` counts gradients that are not finite, too; p.grad is not to be used then. Raises
        TrainingError on every rank where one of them met a number too large for fixed point.
        """
        too_large = self._num_too_large + (not abs(tallies.loss_sum) < LARGEST_LOSS)
        counts = [
            self._num_summed + (self._waiting is not None),
            too_large,
            tallies.num_bad + self._num_bad,
            tallies.wants_stop,
            0 if too_large else to_units(tallies.loss_sum),
            *(getattr(tallies, name) for name in COUNTED),
            *self._used,
        ]
        if self._ranks.world_size > 1:
            counts = self._exchange(counts)
            rows = self._rounded_sums()
        else:
            rows = self._rounded_with_waiting()
        num_passes, too_large, num_bad, wants_stop, loss_units, *rest = counts
        # of all ranks, too: alone a rank would have refused their sum
        _check_range(num_passes, too_large + (abs(loss_units) >= LARGEST_LOSS * UNITS))
        self._gradients.give(rows, used=rest[len(COUNTED) :])
        return Tallies(
            loss_sum=loss_units / UNITS,
            num_bad=num_bad,
            wants_stop=wants_stop,
            **dict(zip(COUNTED, rest, strict=False)),
        )

    def _sum_up(self, rows: Rows) -> None:
        """Add `rows` to the sums; the first ones are put there."""
        for values, sums in self._pieces(rows):
            if self._num_summed == 0:
                self._fixed.units_of(values, out=sums)
            else:
                sums.add_(self._fixed.units_of(values))
        self._num_summed += 1

    def _exchange(self, counts: list[int]) -> list[int]:
        """Make the sums, and return the counts, those of all ranks: one message for both."""
        if self._waiting is not None:
            self._sum_up(self._waiting)
        message = self._message()
        num_values = sum(self._sizes)
        if self._num_summed == 0:  # no micro-batch of this step was ours
            message[:num_values] = 0
        message[num_values:] = torch.tensor(counts)
        self._ranks.sum_(message)
        return [int(count) for count in message[num_values:].tolist()]

    def _rounded_sums(self) -> Rows:
        """Return the sums as float32 rows, in the place of the gradient that waited."""
        rows = self._waiting or [torch.empty(n, device=self._device) for n in self._sizes]
        for values, sums in self._pieces(rows):
            self._fixed.values_of(sums, out=values)
        return rows

    def _rounded_with_waiting(self) -> Rows:
        """Return the sums and the gradient that waits together, as float32 rows in its place."""
        if self._waiting is None:
            return [torch.zeros(n, device=self._device) for n in self._sizes]
        if self._num_summed == 0:
            for values in self._waiting:
                for piece in _cut(values, self._piece):
                    round_(piece)
            return self._waiting
        for values, sums in self._pieces(self._waiting):
            units = self._fixed.units_of(values).add_(sums)
            self._fixed.values_of(units, out=values)
        return self._waiting

    def _pieces(self, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield parts of `rows`, each with the place of its sums."""
        start, message = 0, self._message()
        for row in rows:
            sums = message[start : start + len(row)]
            yield from zip(_cut(row, self._piece), _cut(sums, self._piece), strict=True)
            start += len(row)

    def _message(self) -> Tensor:
        """Return what is sent, int64: the sums of gradients, then the counts."""
        if self._sent is None:
            length = sum(self._sizes) + 5 + len(COUNTED) + len(self._used)
            self._sent = torch.empty(length, dtype=torch.int64, device=self._device)
        return self._sent


def _cut(row: Tensor, size: int) -> Iterator[Tensor]:
    return (row[start : start + size] for start in range(0, len(row), size))


def _check_range(num_passes: int, num_too_large: int) -> None:
    """Raise TrainingError where int64 might not have held the sums."""
    if num_too_large:
        raise TrainingError(
            f"training stopped: {num_too_large} micro-batches of a step have a gradient of "
            f"{LARGEST:,.0f} or more, or a sum of losses of {LARGEST_LOSS:,.0f}, too large for "
            "the sums in fixed point. No weight was changed by this step. The training is about "
            "to diverge: lower optimizer.lr, or look at the patches of this step."
        )
    if num_passes > MAX_TERMS:
        raise TrainingError(
            f"training stopped: a step of {num_passes:,} micro-batches; allowed are {MAX_TERMS:,}. "
            "Raise training.micro_batch, or lower data.batch_size or training.accumulate_steps."
        )
