"""One variant over rising batch sizes, in a process of its own, up to where memory ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ml_core.config import Config
from ml_core.data.free_memory import free_memory_of
from ml_core.errors import MLCoreError
from ml_core.pipeline.benchmarking.figures import AtBatch, Latency, Limit, Variant, Work
from ml_core.pipeline.benchmarking.measuring.device_faults import (
    is_device_error,
    is_out_of_memory,
    told,
)
from ml_core.pipeline.benchmarking.measuring.process_memory import (
    forget_peak,
    held_bytes,
    peak_bytes,
)
from ml_core.pipeline.benchmarking.measuring.timing import FEWEST_LONG_PIECES, latency_of, rate_of
from ml_core.pipeline.benchmarking.measuring.variants import why_not_here
from ml_core.pipeline.benchmarking.measuring.work_on_batch import WorkOnBatch
from ml_core.pipeline.parts.numerics import prepare

TOO_LONG = 20  # times the budget for one batch size: then what is larger is left out, and said
SHORTEST_BUDGET_S = 0.2  # of which that is reckoned: a short look shall not leave out what is quick
_FEWEST_CALLS = 2 + FEWEST_LONG_PIECES  # of one batch size: two to warm up

Piece = Latency | AtBatch | Limit | str  # a str: why the variant cannot be had here


def measure_sizes(
    report: Callable[[Piece], None],
    config: Config,
    work: Work,
    variant: Variant,
    sizes: Sequence[int],
    budget_s: float,
) -> None:
    """Report the latency of a forward pass, then the rate at each of `sizes`, which rise.

    A size that memory will not hold by the last two, that fails for want of it, or that would take
    too long ends them, as a Limit. What torch or a level of numerics refuses is a str. Raises
    DataError for the patches, and what the device raises when it is gone.
    """
    config = _as_computed(config, variant)
    prepare(config, variant.threads)  # first: what it sets is too late once CUDA has started
    if why := why_not_here(variant):
        report(why)
        return
    patches = WorkOnBatch(config, variant)
    sizes_left = list(sizes)
    try:
        _measure(report, patches, work, sizes_left, budget_s)
    except (MLCoreError, RuntimeError, MemoryError, NotImplementedError) as error:
        if is_device_error(error) and not is_out_of_memory(error):
            raise
        is_first = len(sizes_left) == len(sizes)
        if is_out_of_memory(error) or not is_first:
            report(Limit(sizes_left[0], told(error)))
        else:
            report(told(error))


def _measure(
    report: Callable[[Piece], None],
    patches: WorkOnBatch,
    work: Work,
    sizes_left: list[int],
    budget_s: float,
) -> None:
    """Take sizes off `sizes_left` as they are reported."""
    device, memory, calls = patches.device, _Memory(patches), _Line()
    if work == "forward":
        report(latency_of(patches.one_patch(), device=device, budget_s=budget_s))
    while sizes_left:
        size = sizes_left[0]
        if why := memory.lacks(size) or _too_long(calls.at(size), budget_s):
            report(Limit(size, why))
            return
        memory.forget_peak()
        rate = rate_of(patches.prepare(work, size), device=device, budget_s=budget_s)
        report(AtBatch(size, rate, memory.note(size)))
        calls.add(size, size / rate.median)
        del sizes_left[0]


def _too_long(call_s: float | None, budget_s: float) -> str:
    """Return why a size is left out whose calls take `call_s`; "" where it is not, or unknown."""
    seconds = (call_s or 0.0) * _FEWEST_CALLS
    if seconds <= TOO_LONG * max(budget_s, SHORTEST_BUDGET_S):
        return ""
    return f"would take about {seconds:.0f} s to measure, where {budget_s:g} s are meant for it"


class _Line:
    """A value that grows with the batch size: foretold by the last two that were seen."""

    def __init__(self) -> None:
        self._seen = list[tuple[int, float]]()

    def add(self, size: int, value: float) -> None:
        self._seen.append((size, value))

    def at(self, size: int) -> float | None:
        """Return what it will be at `size`; None where fewer than two were seen."""
        if len(self._seen) < 2:
            return None
        (size_1, value_1), (size_2, value_2) = self._seen[-2:]
        return value_2 + (value_2 - value_1) * (size - size_2) / (size_2 - size_1)


class _Memory:
    """What batches take besides the model, and what the next one will."""

    def __init__(self, patches: WorkOnBatch) -> None:
        self._device = patches.device
        patches.one_patch()()  # or the first size would count what the libraries keep for good
        self._base = self._held()
        self._taken = _Line()

    def lacks(self, size: int) -> str:
        """Return why memory will not hold a batch of `size`; "" where it will, or nobody knows."""
        needed, free, held = self._taken.at(size), free_memory_of(self._device), self._held()
        if needed is None or free is None or held is None or self._base is None:
            return ""
        there = free + held - self._base  # what the last size left behind is used again
        if needed <= there:
            return ""
        return f"would take {needed / 1e9:.1f} GB of the {there / 1e9:.1f} GB that are free"

    def forget_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._device.type == "cpu":
            forget_peak()

    def note(self, size: int) -> int | None:
        """Return what a batch of `size`, just computed, took at most."""
        if self._device.type == "cuda":
            peak: int | None = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = peak_bytes() if self._device.type == "cpu" else None
        if peak is None or self._base is None:
            return None
        taken = max(0, peak - self._base)
        self._taken.add(size, taken)
        return taken

    def _held(self) -> int | None:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return held_bytes() if self._device.type == "cpu" else None


def _as_computed(config: Config, variant: Variant) -> Config:
    """Return `config` with the layout and threads of `variant`, at a level that has its precision.

    Only portable computes exactly, and it computes no other way: its variants are those of fast.
    """
    numerics = config.training.numerics
    if numerics == "portable" and variant.precision != "exact":
        numerics = "fast"
    changes = {
        "device": variant.device,
        "num_threads": variant.threads,
        "channels_last": variant.layout == "channels_last",
        "numerics": numerics,
    }
    training = config.training.model_copy(update=changes)
    return config.model_copy(update={"training": training})
