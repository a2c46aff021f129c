"""The learning-rate range test: how the loss answers to a rate that rises from step to step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SMOOTHING = 0.9  # of the running mean of the loss; fastai's 0.98 lags 50 steps behind
DIVERGED = 4.0  # times the lowest smoothed loss: where fastai's test stops
FIRST_STEPS = 20  # at rates too small to learn: where the loss begins
MIN_FALL = 0.03  # of the loss at the beginning
SURE = 6.0  # standard errors of the smoothed loss: noise alone falls by as much 1 time in 1,000
PLATEAU = 0.25  # of the fall: as long as the loss has not risen by more, the rate still learns


@dataclass(frozen=True)
class RangeTest:
    """Learning rate and loss of each step, (S,) each, and the loss smoothed."""

    learning_rates: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    smoothed: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suggestion:
    """What a range test suggests; the rates are None where the loss never falls."""

    learning_rate: float | None  # half way, in its logarithm, from `lowest` to `edge`
    steepest: float | None  # where the smoothed loss falls fastest
    lowest: float | None  # where it is lowest
    edge: float | None  # the highest rate at which it is still low
    diverged_at: float | None  # where the test stopped, if it did
    reason: str  # of what is suggested, or of why nothing is


def learning_rates(lowest: float, highest: float, num_steps: int) -> npt.NDArray[np.float64]:
    """Return `num_steps` rates from `lowest` to `highest`, equally far apart in their logarithm."""
    return np.geomspace(lowest, highest, num_steps)


def smooth(losses: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the running mean of the losses, corrected for its start as Adam corrects its own."""
    mean, smoothed = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**step))
    return np.array(smoothed)


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the test is over: the loss is not finite, or far above the lowest there was."""
    if not math.isfinite(losses[-1]):
        return True
    smoothed = smooth(losses)
    return bool(smoothed[-1] > DIVERGED * smoothed.min())


def suggest(test: RangeTest, diverged: bool) -> Suggestion:
    """Return the rates that the curve suggests.

    A good rate lies below the edge, from which on the loss rises again (Smith 2017, section 3.3).
    Half way between the lowest loss and the edge gave 2.8e-3 for the residual network, 3.5e-4 for
    the perceptron of `experiments/`, whose best by hand are 3e-3 and 3e-4; fastai's tenth of the
    lowest gave 1e-4 and 2e-5. Nothing is suggested where the loss does not fall by more than its
    batches differ.
    """
    finite = np.isfinite(test.smoothed)
    rates, losses, smoothed = (
        values[finite] for values in (test.learning_rates, test.losses, test.smoothed)
    )
    diverged_at = float(test.learning_rates[-1]) if diverged else None
    if len(smoothed) <= FIRST_STEPS:
        reason = "the loss was not finite after so few steps that nothing can be said"
        return Suggestion(None, None, None, None, diverged_at, reason)
    start = float(np.mean(losses[:FIRST_STEPS]))
    at = FIRST_STEPS + int(np.argmin(smoothed[FIRST_STEPS:]))
    fall = start - float(smoothed[at])
    if fall < max(SURE * _standard_error(losses, smoothed), MIN_FALL * start):
        reason = (
            f"the loss never falls beyond chance: {start:.4f} at first, {smoothed[at]:.4f} at its "
            "lowest. The model learns at no rate; look at its inputs and units first"
        )
        return Suggestion(None, None, None, None, diverged_at, reason)
    slopes = np.gradient(smoothed, np.log(rates))[FIRST_STEPS : at + 1]
    is_low = smoothed <= smoothed[at] + PLATEAU * fall
    leaves = np.flatnonzero(~is_low[at:])  # the first step after the lowest that is not
    edge = at + int(leaves[0]) - 1 if len(leaves) else len(rates) - 1
    lowest, edge_rate = float(rates[at]), float(rates[edge])
    return Suggestion(
        learning_rate=math.sqrt(lowest * edge_rate),
        steepest=float(rates[FIRST_STEPS + int(np.argmin(slopes))]) if len(slopes) else None,
        lowest=lowest,
        edge=edge_rate,
        diverged_at=diverged_at,
        reason=f"half way from {lowest:.2g}, where the loss is lowest ({smoothed[at]:.4f}), to "
        f"{edge_rate:.2g}, above which it rises",
    )


def _standard_error(losses: npt.NDArray[np.float64], smoothed: npt.NDArray[np.float64]) -> float:
    """Return how far the smoothed loss strays because batches differ, by the median deviation."""
    deviation = 1.4826 * float(np.median(np.abs(losses - smoothed)))
    return deviation * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))
