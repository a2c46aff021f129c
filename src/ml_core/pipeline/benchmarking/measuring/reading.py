"""How fast the loader of a training gives batches, warm and cold, by how many readers."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from ml_core.config import Config
from ml_core.data.loader import Batch, PatchLoader
from ml_core.data.patch_file import Rows
from ml_core.data.pcam import PCAMDataset
from ml_core.data.worker_faults import explained
from ml_core.errors import MLCoreError
from ml_core.pipeline.benchmarking.figures import Rate, Reading
from ml_core.pipeline.benchmarking.measuring.cold_reading import measure_cold
from ml_core.pipeline.benchmarking.measuring.reading_parts import measure_parts
from ml_core.pipeline.benchmarking.measuring.timing import rate_of
from ml_core.pipeline.benchmarking.measuring.warm_split import open_warm
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import train_loader, train_order

logger = logging.getLogger("ml_core.benchmark")

_OTHER_EPOCHS = 1_000  # from here on the epochs of whatever must not meet the loader's patches


def measure_reading(config: Config, exclude: Mapping[str, Rows], *, budget_s: float) -> Reading:
    """Return how fast batches of the train split come, shuffled, of the config's size, on the host.

    `exclude`: rows of each split to leave out. `budget_s` for each number of readers, for the parts
    and for the cold read. The start of readers is not timed. Raises DataError as a training does.
    """
    dataset, own = open_warm(config, exclude), config.data.num_workers
    parts, busy = _parts(with_workers(config, 0), dataset, budget_s)
    by_workers = dict[int, Rate]()
    for num_workers in _numbers_of_workers(config):
        try:
            by_workers[num_workers] = _rate(with_workers(config, num_workers), dataset, budget_s)
        except MLCoreError as error:
            if num_workers == own:
                raise
            logger.warning("%d readers were not measured: %s", num_workers, error)
    cold, cold_failed = _cold(config, dataset, budget_s)
    return Reading(
        warm=by_workers[own],
        cold=cold,
        cold_failed=cold_failed,
        by_workers=by_workers,
        parts=parts,
        busy=busy,
    )


def with_workers(config: Config, num_workers: int) -> Config:
    """Return `config` with another number of reader processes."""
    data = config.data.model_copy(update={"num_workers": num_workers})
    return config.model_copy(update={"data": data})


def num_cores() -> int:
    """Return how many cores this process may use: those of its job, not of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def endless(loader: PatchLoader) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other."""
    for epoch in itertools.count(1):
        loader.batch_sampler.set_epoch(epoch)
        yield from loader


def _numbers_of_workers(config: Config) -> list[int]:
    if config.data.placement != "file":
        return [0]
    return sorted({0, 1, config.data.num_workers, num_cores()})


def _loader(config: Config, dataset: PCAMDataset) -> PatchLoader:
    """Return the training's loader; its batches stay on the host unless the patches do not."""
    is_on_gpu = config.data.placement == "gpu"
    device = choose_device(config.training.device) if is_on_gpu else torch.device("cpu")
    return train_loader(config, dataset, device)


def _rate(config: Config, dataset: PCAMDataset, budget_s: float) -> Rate:
    """Return the rate of a loader; a piece has a batch of each reader: they come in bursts."""
    batches = endless(_loader(config, dataset))

    def read() -> int:
        return sum(len(next(batches).labels) for _ in range(max(1, config.data.num_workers)))

    with explained():  # torch raises a reader's death wherever this process happens to be
        return rate_of(read, device=dataset.held_on or torch.device("cpu"), budget_s=budget_s)


def _cold(config: Config, dataset: PCAMDataset, budget_s: float) -> tuple[Rate | None, str]:
    if dataset.held_on is not None:
        return None, "the patches are read once, at the start, and then kept in memory"
    loader = _loader(config, dataset)
    next(iter(loader))  # starts its readers
    return measure_cold(loader, _OTHER_EPOCHS, budget_s=budget_s)


def _parts(config: Config, dataset: PCAMDataset, budget_s: float) -> tuple[dict[str, float], float]:
    batches = endless(_loader(config, dataset))
    return measure_parts(dataset, _rows(config, dataset), batches, budget_s=budget_s)


def _rows(config: Config, dataset: PCAMDataset) -> Iterator[Rows]:
    """Yield the rows of other batches of the same kind, without end."""
    order = train_order(config, dataset)
    for epoch in itertools.count(_OTHER_EPOCHS):
        order.set_epoch(epoch)
        for positions in order:
            yield dataset.indices[np.asarray(positions)]
