"""What bounds a training, by how much, and what would help: one sentence after another.

Pure: figures in, verdict out. The bound is the group that takes most of the time, the reader or
the step, and of that group the part that takes most.
"""

from __future__ import annotations

from ml_core.page.text import count, percent
from ml_core.pipeline.benchmarking.figures import Advice, Bound, Verdict
from ml_core.pipeline.benchmarking.judging.advice import Gain, find_gains
from ml_core.pipeline.benchmarking.judging.step_limit import StepLimit, find_step_limit
from ml_core.pipeline.benchmarking.judging.time_parts import (
    Measured,
    best_with_fewer_workers,
    parts_of_time,
    read_rate,
)

NOTHING = 1.03  # a factor below this is called nothing
# Time that reader processes cost is work that need not be done at all: it is named as soon as it
# is so much, though the step takes more.
WORKERS = 0.2

NAMES: dict[Bound, str] = {
    "reading": "Reading",
    "decoding": "Decoding",
    "waiting": "Waiting in the loader",
    "workers": "Reader processes",
    "transfer": "The copy to the device",
    "launch": "Starting operations",
    "compute": "Computing",
    "memory": "Moving bytes in the step",
}


def judge(measured: Measured) -> Verdict:
    """Return the verdict on a training as it is configured, with what would help."""
    parts, gains = parts_of_time(measured), find_gains(measured)
    largest = _largest(parts)
    bound: Bound = largest
    if largest == "compute":
        limit = find_step_limit(measured)
        bound, told, without = limit.bound, _of_step(parts, limit), read_rate(measured)
    else:
        told = _of_reader(largest, parts, measured)
        without = _without(largest, parts, measured)
    return Verdict(
        bound=bound,
        share=parts[largest],
        without=without,
        sentence=" ".join(part for part in (told, _best(gains)) if part),
        advice=tuple(Advice(gain.setting, _why(gain)) for gain in gains),
    )


def _largest(parts: dict[Bound, float]) -> Bound:
    if parts["workers"] >= WORKERS:
        return "workers"
    if parts["compute"] >= 0.5:
        return "compute"
    of_reader = {part: share for part, share in parts.items() if part != "compute"}
    return max(of_reader, key=lambda part: of_reader[part])


def _of_step(parts: dict[Bound, float], limit: StepLimit) -> str:
    step = round(100 * parts["compute"])
    factor = 1 / (1 - (1 - parts["compute"]) / 2)
    changes = "change nothing" if factor < NOTHING else f"make it x {factor:.2f}"
    told = (
        f"{NAMES[limit.bound]} bounds this training: {step} % of the time goes into the step, "
        f"{100 - step} % into waiting for patches; a reader twice as fast would {changes}."
    )
    return f"{told} {limit.why}".strip()


def _of_reader(bound: Bound, parts: dict[Bound, float], measured: Measured) -> str:
    verb = "bound" if bound == "workers" else "bounds"
    step = f"{percent(parts['compute'], 0)} goes into the step"
    beside = "with the steps beside it" if bound == "transfer" else step
    return (
        f"{NAMES[bound]} {verb} this training: {percent(parts[bound], 0)} of the time "
        f"{_what(bound, measured)}, {beside}. Without that it would train "
        f"{count(round(_without(bound, parts, measured)))} patches/s instead of "
        f"{count(measured.end_to_end.training.median)}."
    )


def _what(bound: Bound, measured: Measured) -> str:
    """Return what happens in the time that is lost, as the rest of a sentence."""
    num_workers, cores = measured.settings["num_workers"], measured.settings["cores"]
    stored = f"{measured.data['layout']} {measured.data['dtype']}"
    fewer = best_with_fewer_workers(measured)
    readers = f"{num_workers} reader{'s' if num_workers != 1 else ''} on {_cores(cores)}"
    return {
        "reading": "goes into getting patches"
        + (" out of the file" if measured.settings["placement"] == "file" else " out of memory"),
        "decoding": f"goes into decoding patches, which are stored as {stored}",
        "waiting": "the loader neither reads nor computes: it sleeps, or waits for something else",
        "workers": f"is lost to {readers}, where {fewer[0] if fewer else 0} would do",
        "transfer": "patches are on their way to the device",
    }[bound]


def _without(bound: Bound, parts: dict[Bound, float], measured: Measured) -> float:
    """Return the patches per second of a training in which that part took no time.

    What need not be decoded lies flat, and that is read at next to no cost.
    """
    fewer = best_with_fewer_workers(measured)
    if bound == "workers" and fewer:
        return fewer[1].median
    saved = parts["decoding"] + parts["reading"] if bound == "decoding" else parts[bound]
    training = measured.end_to_end.training.median
    return training / max(1 - saved, training / measured.end_to_end.in_memory.median)


def _best(gains: list[Gain]) -> str:
    if not gains or gains[0].factor is None:
        return ""
    most = "at most " if gains[0].is_most else ""
    return f"{gains[0].setting} would give {most}x {gains[0].factor:.2f}."


def _why(gain: Gain) -> str:
    return gain.why if gain.factor is None else f"x {gain.factor:.2f}: {gain.why}"


def _cores(cores: int) -> str:
    return f"{cores} core{'s' if cores != 1 else ''}"
