"""Everything of a benchmark, measured one after the other and told as it comes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ml_core.config import Config
from ml_core.data.checks import SplitRecord
from ml_core.data.free_memory import free_memory_of
from ml_core.data.patch_file import Rows
from ml_core.log import counted, shown
from ml_core.page.text import count, percent
from ml_core.pipeline.benchmarking.figures import Computing, Variant, Work
from ml_core.pipeline.benchmarking.judging.time_parts import Measured
from ml_core.pipeline.benchmarking.measuring.computing import measure_computing, variants_of
from ml_core.pipeline.benchmarking.measuring.end_to_end import measure_end_to_end
from ml_core.pipeline.benchmarking.measuring.model_cost import model_cost
from ml_core.pipeline.benchmarking.measuring.peak import measure_peak
from ml_core.pipeline.benchmarking.measuring.reading import measure_reading, num_cores
from ml_core.pipeline.benchmarking.measuring.transfer import measure_transfer
from ml_core.pipeline.benchmarking.telling.table import variant_in_words
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.training_parts import build_new_model

logger = logging.getLogger("ml_core.benchmark")

SIZES = tuple(2**power for power in range(10))  # 1 to 512
TRAINING = 3  # times the seconds, since a verdict rests on it
OTHERS = 0.5  # of the seconds, for the ways to compute that are not the config's


@dataclass(frozen=True)
class Effort:
    """How much is measured: `seconds` for each thing, and at which batch sizes, if that is said.

    A `quick` one measures the config's own way to compute only, at few sizes.
    """

    seconds: float
    sizes: tuple[int, ...] = ()
    quick: bool = False

    def own_sizes(self, batch_size: int) -> tuple[int, ...]:
        """Return the sizes for the config's own way: its batch size is among them."""
        if self.sizes:
            return tuple(sorted({*self.sizes, batch_size}))
        around = {batch_size, 2 * batch_size}
        return tuple(sorted({1, *around} if self.quick else {*SIZES, *around}))

    def sizes_of_others(self, work: Work, batch_size: int) -> tuple[int, ...]:
        """Return the sizes for the other ways, which are compared at the config's."""
        return (1, batch_size) if work == "forward" and batch_size > 1 else (batch_size,)


def measure_all(
    config: Config,
    checks: Sequence[SplitRecord],
    exclude: Mapping[str, Rows],
    device: torch.device,
    effort: Effort,
) -> Measured:
    """Return all that is measured of `config`; each thing is logged as soon as it is known.

    `checks` are of the splits that a training keeps, the first is train; `exclude` are rows of each
    split to leave out. Raises what the measuring functions raise.
    """
    own, seconds = variants_of(config, device)[0], effort.seconds
    data, model = _describe_data(config, checks, device), _describe_model(config, exclude, own)
    reading = measure_reading(config, exclude, budget_s=seconds)
    cold = "" if reading.cold is None else f"; from the disk {count(reading.cold.median)}"
    logger.info("reading: %s patches/s%s", count(reading.warm.median), cold)
    transfer = measure_transfer(config, device, budget_s=seconds)
    if transfer is not None:
        logger.info("to the device: %s patches/s", count(transfer.pageable.median))
    peak = measure_peak(device, own.precision, budget_s=seconds)
    end_to_end = measure_end_to_end(config, exclude, budget_s=seconds * TRAINING)
    logger.info(
        "training: %s patches/s, %s of the time waiting for batches; in memory %s",
        count(end_to_end.training.median), percent(end_to_end.waited, 0),
        count(end_to_end.in_memory.median),
    )  # fmt: skip
    return Measured(
        settings=_settings(config, own),
        data=data,
        model=model,
        reading=reading,
        transfer=transfer,
        computing=_measure_ways(config, device, effort),
        end_to_end=end_to_end,
        peak=peak,
    )


def _measure_ways(config: Config, device: torch.device, effort: Effort) -> tuple[Computing, ...]:
    """Return forward pass and training step, first in the config's own way, then in the others."""
    own, *others = variants_of(config, device)
    batch_size = config.data.batch_size
    works: tuple[Work, ...] = ("forward", "train step")
    found = []
    for variant in (own, *([] if effort.quick else others)):
        for work in works:
            is_own, name = variant == own, f"{work}, {variant_in_words(variant, own)}"
            others_sizes = effort.sizes_of_others(work, batch_size)
            sizes = effort.own_sizes(batch_size) if is_own else others_sizes
            budget_s = effort.seconds * (1 if is_own else OTHERS)
            with counted(name, len(sizes), "sizes") as advance:
                each = measure_computing(
                    config,
                    work,
                    variant,
                    sizes,
                    budget_s=budget_s,
                    report=lambda known: advance(1),
                )
            logger.info("%s: %s", name, _told(each))
            found.append(each)
    return tuple(found)


def _told(computing: Computing) -> str:
    best = computing.best()
    if best is None:
        return computing.failed or (computing.limit.why if computing.limit else "not measured")
    return f"{count(best.rate.median)} patches/s in batches of {best.batch_size:,}"


def _settings(config: Config, own: Variant) -> dict[str, Any]:
    """Return what of the config decides how fast it is, as it was taken here."""
    return {
        "batch_size": config.data.batch_size,
        "num_workers": config.data.num_workers,
        "placement": config.data.placement,
        "accumulate_steps": config.training.accumulate_steps,
        "numerics": config.training.numerics,
        "device": own.device,
        "precision": own.precision,
        "channels_last": own.layout == "channels_last",
        "num_threads": own.threads,
        "cores": num_cores(),
    }


def _describe_data(
    config: Config, checks: Sequence[SplitRecord], device: torch.device
) -> dict[str, Any]:
    """Return how the train split is stored, and what all splits of a training take in memory."""
    train, gpu = checks[0], device.type == "cuda"
    height, width, channels = train.shape
    return {
        "data_path": shown(config.data.files_dir),
        "num_patches": train.num_patches,
        "x_sha256": train.x_sha256,
        "dtype": train.dtype,
        "layout": train.layout,
        "num_bytes": sum(check.num_patches for check in checks) * height * width * channels,
        "free_bytes": {
            "ram": free_memory_of(torch.device("cpu")),
            "gpu": free_memory_of(device) if gpu else None,
        },
    }


def _describe_model(config: Config, exclude: Mapping[str, Rows], own: Variant) -> dict[str, Any]:
    return model_cost(build_new_model(config, open_split(config, "train", exclude)), own.precision)
