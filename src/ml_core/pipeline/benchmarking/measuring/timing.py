"""Timing pieces of work: warm-up, a clock that waits for the device, as many rounds as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ml_core.pipeline.benchmarking.figures import Latency, Rate

Clock = Callable[[], float]

# A piece is as many calls as take this long: waiting for a GPU at its end drains the queue of
# launches, which a small batch would else be measured by; and batches of readers come in bursts.
SHORTEST_PIECE_S = 0.02
MOST_CALLS = 100_000
STEADY = 0.2  # by how much two pieces in a row may differ once a work is warm
MOST_WARM_UP = 0.25  # of the budget
FEWEST_PIECES, FEWEST_LONG_PIECES = 5, 3
FEWEST_CALLS, MOST_LATENCIES = 20, 10_000


def rate_of(
    work: Callable[[], int],
    *,
    device: torch.device,
    budget_s: float,
    clock: Clock = time.perf_counter,
) -> Rate:
    """Return the patches per second of `work`, which returns how many patches it did.

    It is called until two pieces in a row take about the same time, or a quarter of `budget_s` is
    spent; then timed until all of it is, and at least five times. A piece so long that five would
    take more than three times the budget is timed three times.
    """
    timer = _Timer(work, device, clock)
    started = timer.now()
    timer.warm_up(started + MOST_WARM_UP * budget_s)
    pieces = list[tuple[int, float]]()
    while len(pieces) < FEWEST_LONG_PIECES or (
        (len(pieces) < FEWEST_PIECES and timer.now() - started < 3 * budget_s)
        or timer.now() - started < budget_s
    ):
        pieces.append(timer.piece())
    return rate_from(pieces)


def rate_from(pieces: Sequence[tuple[int, float]]) -> Rate:
    """Return the rate of pieces of work that were timed: (patches, seconds) of each."""
    rates = [patches / seconds for patches, seconds in pieces]
    low, median, high = np.percentile(rates, (25, 50, 75))
    return Rate(median=float(median), low=float(low), high=float(high), num=len(rates))


def latency_of(
    work: Callable[[], object],
    *,
    device: torch.device,
    budget_s: float,
    clock: Clock = time.perf_counter,
) -> Latency:
    """Return how long one call of `work` takes until the device is done with it.

    Warmed up as in `rate_of`; at least 20 calls are timed, one by one.
    """
    timer = _Timer(lambda: (work(), 1)[1], device, clock)
    started = timer.now()
    timer.warm_up(started + MOST_WARM_UP * budget_s)
    timer.num_calls = 1
    seconds = list[float]()
    while len(seconds) < FEWEST_CALLS or (
        timer.now() - started < budget_s and len(seconds) < MOST_LATENCIES
    ):
        seconds.append(timer.piece()[1])
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return Latency(p50=float(p50), p95=float(p95), p99=float(p99), num=len(seconds))


def synchronise(device: torch.device) -> None:
    """Return when `device` has done all it was told: a GPU is told its work and not waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class _Timer:
    """Calls a work and takes the time, so many calls at once that the clock does not matter."""

    def __init__(self, work: Callable[[], int], device: torch.device, clock: Clock) -> None:
        self.num_calls = 1
        self._work = work
        self._device = device
        self._clock = clock

    def now(self) -> float:
        synchronise(self._device)
        return self._clock()

    def piece(self) -> tuple[int, float]:
        """Return the patches and the seconds of one piece."""
        started = self.now()
        patches = sum(self._work() for _ in range(self.num_calls))
        return patches, self.now() - started

    def warm_up(self, until: float) -> None:
        """Call the work until it is steady, or the clock says `until`; then know a piece's size."""
        before, after = self.piece()[1], self.piece()[1]
        while self.now() < until:
            if after < SHORTEST_PIECE_S and self.num_calls < MOST_CALLS:
                self.num_calls *= 2
            elif abs(after - before) <= STEADY * max(before, after):
                return
            before, after = after, self.piece()[1]
