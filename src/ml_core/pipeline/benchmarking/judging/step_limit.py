"""What holds a training step back: starting its operations, its arithmetic, or moving its bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ml_core.page.text import percent
from ml_core.pipeline.benchmarking.figures import Computing
from ml_core.pipeline.benchmarking.judging.time_parts import Measured

# A batch of twice the size takes twice as long where the work takes the time. Where it takes less
# than this much longer, what is done once per batch does.
LAUNCH = 1.3
FILLED = 0.3  # of the device's peak, below which neither arithmetic nor bytes can be the limit
# A backward pass computes two products of the size of each one of the forward pass: the gradients
# of its input and of its kernel.
FLOPS_OF_STEP = 3
# Each result of a layer is written and read in the forward pass, read again in the backward pass,
# where its gradient is written and read.
MOVES_OF_RESULT = 5
# Each parameter: read in both passes, its gradient written, read for the norm; AdamW reads weight,
# gradient and two moments and writes all but the gradient.
MOVES_OF_PARAMETER = 11
FLOAT = 4  # bytes


@dataclass(frozen=True)
class StepLimit:
    """What holds a step back, and how that is known: a sentence."""

    bound: Literal["launch", "compute", "memory"]
    why: str


def find_step_limit(measured: Measured) -> StepLimit:
    """Return what holds the step back at the config's batch size, nothing having to be read."""
    growth = growth_of_doubled(own_step(measured), measured.settings["batch_size"])
    flops, results, weights = _shares_of_peak(measured)
    moved = min(1.0, results + weights)
    if growth is not None and growth < LAUNCH and max(flops, moved) < FILLED:
        return StepLimit(
            "launch",
            f"Twice the batch takes only {growth:.2f} times as long: starting the operations, "
            "which is done once per batch, takes the time.",
        )
    if measured.peak is None:
        return StepLimit("compute", "")
    reached = f"{percent(flops, 0)} of the arithmetic and {percent(moved, 0)} of the bytes"
    told = f"Its large operations do {reached} that this device is capable of"
    if max(flops, moved) < FILLED:
        return StepLimit("compute", f"{told}: small ones between them take the time.")
    if flops >= moved:
        return StepLimit("compute", f"{told}.")
    if weights > results:
        return StepLimit(
            "memory", f"{told}: it moves weights, which larger batches would have in common."
        )
    return StepLimit("memory", f"{told}: it moves what its layers give one another.")


def own_step(measured: Measured) -> Computing | None:
    """Return the training step in the config's own way to compute; None if it was not measured."""
    steps = (each for each in measured.computing if each.work == "train step")
    found = next(steps, None)
    return found if found is not None and found.at else None


def growth_of_doubled(step: Computing | None, batch_size: int) -> float | None:
    """Return how many times as long a step of twice the patches takes; None if that is not known.

    Measured from `batch_size`, or the nearest size there is, to the next larger one; from the one
    below where there is none. Steps between sizes that are not doubled are brought to that.
    """
    if step is None or len(step.at) < 2:
        return None
    at = sorted(step.at, key=lambda each: each.batch_size)
    nearest = min(range(len(at)), key=lambda i: abs(math.log(at[i].batch_size / batch_size)))
    first = min(nearest, len(at) - 2)
    small, large = at[first], at[first + 1]
    times = large.batch_size / large.rate.median / (small.batch_size / small.rate.median)
    return float(times ** (math.log(2) / math.log(large.batch_size / small.batch_size)))


def _shares_of_peak(measured: Measured) -> tuple[float, float, float]:
    """Return which shares of the device's peaks a step uses: arithmetic, results, weights."""
    model, peak = measured.model, measured.peak
    if peak is None:
        return 0.0, 0.0, 0.0
    rate = measured.end_to_end.in_memory.median
    flops = FLOPS_OF_STEP * model["flops_per_patch"]
    results = MOVES_OF_RESULT * model["bytes_per_patch"]
    parameters = FLOAT * model["num_parameters"] / measured.settings["batch_size"]
    return (
        min(1.0, flops * rate / peak.flops),
        results * rate / peak.bytes,
        MOVES_OF_PARAMETER * parameters * rate / peak.bytes,
    )
