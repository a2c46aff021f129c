"""What would help, by what was measured: a setting, and the factor that it gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ml_core.page.text import count
from ml_core.pipeline.benchmarking.figures import AtBatch, Computing, Rate, Variant
from ml_core.pipeline.benchmarking.judging.step_limit import own_step
from ml_core.pipeline.benchmarking.judging.time_parts import Measured, parts_of_time

WORTH = 1.05  # a factor below this is not worth another config, and within what noise does
AS_GOOD = 0.95  # of the best rate: the smallest batch that reaches it is suggested
ROOM = 0.5  # of the free memory that patches may take: the training needs some too


@dataclass(frozen=True)
class Gain:
    """A change, what it is known by, and how many times as fast the training becomes by it.

    Without a factor it is a matter of the disk and not of the training that was measured.
    """

    setting: str
    why: str
    factor: float | None
    is_most: bool = False  # the factor is what can be gained at most, and was not measured


def find_gains(measured: Measured) -> list[Gain]:
    """Return the changes that are worth it, the greatest gain first.

    Nothing is suggested that was not measured here, but for packing and for the placement of the
    patches, whose factor is the share of the time that they would save at most. What makes the
    step faster counts for as much as the step has of the time.
    """
    found = [
        *_batch_size(measured),
        *_other_ways(measured),
        *_workers(measured),
        *_pack(measured),
        *_placement(measured),
        *_local_copy(measured),
    ]
    worth = [each for each in found if each.factor is None or each.factor >= WORTH]
    return sorted(worth, key=lambda each: -(each.factor or 0.0))


def _batch_size(measured: Measured) -> Iterator[Gain]:
    step = own_step(measured)
    own = _at(step, measured.settings["batch_size"])
    if step is None or own is None:
        return
    best = step.best() or own
    good = [each for each in step.at if each.rate.median >= AS_GOOD * best.rate.median]
    smallest = min(good, key=lambda each: each.batch_size)
    if smallest.rate.low > own.rate.high:
        yield Gain(
            f"data.batch_size: {smallest.batch_size}",
            f"{_instead('the step takes', smallest.rate, own.rate)}; with another batch size the "
            "learning rate has to be chosen again",
            _factor_of_training(measured, smallest.rate.median / own.rate.median),
        )


def _other_ways(measured: Measured) -> Iterator[Gain]:
    """Yield the ways to compute that are a setting away and make the step faster."""
    step, batch_size = own_step(measured), measured.settings["batch_size"]
    own = _at(step, batch_size)
    if step is None or own is None:
        return
    for other in measured.computing:
        at = _at(other, batch_size) if other.work == "train step" else None
        setting = setting_between(step.variant, other.variant)
        if at is not None and setting and at.rate.low > own.rate.high:
            yield Gain(
                setting,
                _instead("the step takes", at.rate, own.rate),
                _factor_of_training(measured, at.rate.median / own.rate.median),
            )


def setting_between(own: Variant, other: Variant) -> str:
    """Return the setting that makes `own` into `other`; "" where there is none for it.

    Order-free arithmetic is a promise, so no setting leads to or from it here.
    """
    settings = {
        "precision": f"training.precision: {other.precision}",
        "layout": f"training.channels_last: {str(other.layout == 'channels_last').lower()}",
        "threads": f"training.num_threads: {other.threads}",
    }
    if other.precision not in ("fp32", "bf16") or own.precision == "exact":
        return ""
    for name, setting in settings.items():
        if other != own and replace(own, **{name: getattr(other, name)}) == other:
            return setting
    return ""


def _workers(measured: Measured) -> Iterator[Gain]:
    training = measured.end_to_end.training
    faster = {
        num: rate
        for num, rate in measured.end_to_end.by_workers.items()
        if num != measured.settings["num_workers"] and rate.low > training.high
    }
    if faster:
        num, rate = max(faster.items(), key=lambda each: each[1].median)
        why = _instead("the training takes", rate, training)
        yield Gain(f"data.num_workers: {num}", why, rate.median / training.median)


def _pack(measured: Measured) -> Iterator[Gain]:
    data = measured.data
    if data["layout"] == "contiguous" and data["dtype"] == "uint8":
        return
    parts = parts_of_time(measured)
    yield Gain(
        f"ml-core data pack {data['data_path']} PACKED, and data.data_path: PACKED",
        f"the patches are stored as {data['layout']} {data['dtype']}, and flat uint8 is "
        "read without decoding",
        1 / (1 - parts["decoding"] - parts["reading"]),
        is_most=True,
    )


def _placement(measured: Measured) -> Iterator[Gain]:
    """Yield where the patches could be kept: what is then saved is all that is waited for."""
    data, settings = measured.data, measured.settings
    if settings["placement"] != "file":
        return
    parts = parts_of_time(measured)
    lost = {"ram": 1 - parts["compute"] - parts["transfer"], "gpu": 1 - parts["compute"]}
    workers = ", and data.num_workers: 0" if settings["num_workers"] else ""
    for place, share in reversed(lost.items()):
        free = data["free_bytes"].get(place)
        if free is not None and data["num_bytes"] <= ROOM * free:
            yield Gain(
                f"data.placement: {place}{workers}",
                f"the patches are {_gigabytes(data['num_bytes'])}, of {_gigabytes(free)} that are "
                "free; nothing is then read while it trains. By arithmetic, not measured",
                1 / (1 - share),
                is_most=True,
            )
            return


def _local_copy(measured: Measured) -> Iterator[Gain]:
    cold, training = measured.reading.cold, measured.end_to_end.training
    if cold is not None and cold.high < training.low and measured.settings["placement"] == "file":
        yield Gain(
            "data.local_copy: a folder on a disk of this machine, by ml-core data stage",
            f"what the system does not keep in memory is read at {count(cold.median)} patches/s, "
            f"and the training takes {count(training.median)}: the first epoch waits for the disk, "
            "and of files larger than the memory every epoch",
            None,
        )


def _at(computing: Computing | None, batch_size: int) -> AtBatch | None:
    at = () if computing is None else computing.at
    return next((each for each in at if each.batch_size == batch_size), None)


def _factor_of_training(measured: Measured, factor_of_step: float) -> float:
    """Return how many times as fast a training is whose step alone is so much faster."""
    step = parts_of_time(measured)["compute"]
    return 1 / (1 - step + step / factor_of_step)


def _instead(who: str, new: Rate, old: Rate) -> str:
    return f"{who} {count(new.median)} patches/s instead of {count(old.median)}"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
