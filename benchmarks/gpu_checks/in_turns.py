"""Rates of several ways to do the same, measured in turns: what slows one slows the others."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

Rates = dict[str, list[float]]
PIECE_S = 0.02  # against some 20 us that waiting for a GPU takes
LEAST_ROUNDS = 5


def in_turns(
    sides: Mapping[str, Callable[[], int]],
    device: torch.device,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Rates:
    """Return the rates of each side, one a round; a side returns how many patches it did.

    The first round warms up and is not counted. At least five are, and as many as fit into
    `seconds`.
    """
    rates: Rates = {name: [] for name in sides}
    for side in sides.values():
        seconds_of(side, device, clock)
    ends_at, num_rounds = clock() + seconds, 0
    while num_rounds < LEAST_ROUNDS or clock() < ends_at:
        for name, side in sides.items():
            num, took = seconds_of(side, device, clock)
            rates[name].append(num / took)
        num_rounds += 1
    return rates


def seconds_of(
    work: Callable[[], int], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[int, float]:
    """Return what `work` returned and how long it took, the device's part of it included."""
    wait_for(device)
    started = clock()
    num = work()
    wait_for(device)
    return num, clock() - started


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeated(
    call: Callable[[], object], num_patches: int, device: torch.device
) -> Callable[[], int]:
    """Return work that calls as often as takes PIECE_S, for a call that does `num_patches`.

    The call is warmed up here: kernels are chosen and memory is taken in the first ones.
    """

    def work(times: int) -> int:
        for _ in range(times):
            call()
        return times * num_patches

    work(3)
    _, seconds = seconds_of(partial(work, 1), device)
    return partial(work, max(1, math.ceil(PIECE_S / max(seconds, 1e-9))))


def medians(rates: Rates) -> dict[str, float]:
    """Return the median rate of each side."""
    return {name: round(statistics.median(values), 1) for name, values in rates.items()}


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Return the median over the rounds of one side's rate by another's in the same round."""
    return round(statistics.median(a / b for a, b in zip(of, to, strict=True)), 3)
