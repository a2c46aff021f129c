"""Where the time of a training goes: how much of it into reading, decoding, waiting, computing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ml_core.pipeline.benchmarking.figures import (
    Bound,
    Computing,
    EndToEnd,
    Peak,
    Rate,
    Reading,
    Transfer,
)

NOISE = 0.05  # of a ratio of two rates that were measured in turns
COPYING = 0.8  # of the time: where copies run for so much of it, they are the bound
# A read between two steps, which leave nothing of it in the processor's cache, was measured to take
# up to this many times as long as one of many in a row.
BESIDE_STEPS = 3


@dataclass(frozen=True)
class Measured:
    """What a verdict is drawn from; the fields are those of `Benchmark`.

    `settings` has batch_size, num_workers, cores, device, precision, channels_last, num_threads,
    placement and numerics; `data` has layout, dtype and num_bytes; `model` has num_parameters,
    flops_per_patch and bytes_per_patch.
    """

    settings: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    reading: Reading
    transfer: Transfer | None
    computing: tuple[Computing, ...]
    end_to_end: EndToEnd
    peak: Peak | None


def parts_of_time(measured: Measured) -> dict[Bound, float]:
    """Return the shares of a training's time, which sum to 1; "compute" is the whole step.

    The time in which the step waits for a batch is divided as the reader's own time was. What
    reader processes cost is what fewer of them would save: that is measured, and counts before all
    else. Where fewer would save nothing, steps that are slower than in memory are so since the
    readers do their work on the same cores, and that is divided like the waiting.
    """
    settings, end_to_end = measured.settings, measured.end_to_end
    rate, in_memory = end_to_end.training.median, end_to_end.in_memory.median
    lost = end_to_end.waited
    slowed = 1 - rate / in_memory - end_to_end.waited
    if settings["num_workers"] and slowed > NOISE:
        lost += slowed
    fewer = best_with_fewer_workers(measured)
    workers = 1 - rate / fewer[1].median if fewer else 0.0
    lost = max(0.0, lost - workers)
    shares = {part: lost * share for part, share in _parts_of_waiting(measured).items()}
    transfer = max(shares["transfer"], _copying(measured))
    if transfer >= COPYING:  # whatever waits, waits for it
        idle = dict.fromkeys(shares, 0.0)
        return {**idle, "transfer": transfer, "workers": 0.0, "compute": 1 - transfer}
    return {**shares, "workers": workers, "compute": 1 - workers - lost}


def best_with_fewer_workers(measured: Measured) -> tuple[int, Rate] | None:
    """Return how many workers, fewer than the config's, train fastest; None if none is faster.

    Faster means that the middle halves of the two do not meet.
    """
    training, num_workers = measured.end_to_end.training, measured.settings["num_workers"]
    fewer = {
        num: rate
        for num, rate in measured.end_to_end.by_workers.items()
        if num < num_workers and rate.low > training.high
    }
    return max(fewer.items(), key=lambda each: each[1].median, default=None)


def read_rate(measured: Measured) -> float:
    """Return the patches per second that the config's loader gives where nobody computes."""
    by_workers = measured.reading.by_workers
    return by_workers.get(measured.settings["num_workers"], measured.reading.warm).median


def _copying(measured: Measured) -> float:
    """Return the share of the time in which batches are on their way to the device."""
    transfer = measured.transfer
    if transfer is None or measured.settings["placement"] == "gpu":
        return 0.0
    rate = transfer.pinned or transfer.pageable
    return min(1.0, measured.end_to_end.training.median / rate.median)


def _parts_of_waiting(measured: Measured) -> dict[Bound, float]:
    """Return what a training waits for while it waits for a batch: shares that sum to 1.

    Without reader processes it waits about as long as the reader takes; much longer than that, for
    the copy to the device, and then for the disk, since the reader was measured with the file in
    the system's cache.
    """
    seconds = _seconds_of_reader(measured.reading)
    if not measured.settings["num_workers"]:
        batch_s = measured.settings["batch_size"] / measured.end_to_end.training.median
        by_reader = {part: BESIDE_STEPS * each for part, each in seconds.items()}
        longer = measured.end_to_end.waited * batch_s - sum(by_reader.values())
        if longer > 0:
            copying = min(longer, _copying(measured) * batch_s)
            seconds = {**by_reader, "transfer": copying}
            seconds["reading"] += longer - copying
    total = sum(seconds.values())
    return {part: each / total for part, each in seconds.items()}


def _seconds_of_reader(reading: Reading) -> dict[Bound, float]:
    """Return what a reader by itself does with its time, in seconds per batch.

    While it does not compute it may wait for the disk, as long as the bytes alone take; what it
    waits beyond that is for something else.
    """
    stored, decoded, rest = (reading.parts[part] for part in ("stored", "decoded", "rest"))
    idle = (1 - reading.busy) * (stored + decoded + rest)
    waiting = min(max(0.0, idle - stored), decoded + rest)
    waiting_in_rest = min(waiting, rest)
    return {
        "reading": stored + rest - waiting_in_rest,
        "decoding": decoded - (waiting - waiting_in_rest),
        "waiting": waiting,
        "transfer": 0.0,
    }
