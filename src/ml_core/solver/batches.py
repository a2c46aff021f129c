"""A loader as the training loop reads it: the course's or ours, alone or shared by ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ml_core.data.loader import Batch, EpochBatches, PatchLoader
from ml_core.distributed import Ranks


def batches_of(loader: Iterable[Any], rows: int = 0) -> Iterator[Batch]:
    """Yield batches; those of the course, (images, labels), number their rows from `rows` on."""
    for batch in loader:
        if isinstance(batch, Batch):
            yield batch
        else:
            images, labels = batch
            yield Batch(images, labels, torch.arange(rows, rows + len(labels)))
            rows += len(labels)


def num_batches_of(loader: Iterable[Any]) -> int | None:
    """Return how many batches `loader` will give, if it can tell."""
    return len(loader) if isinstance(loader, Sized) else None


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of up to `size` batches."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def batches_to_come(
    loader: Iterable[Any], epoch: int, *, batches: int, rows: int
) -> Iterator[Batch]:
    """Return the batches of `epoch` after the first `batches`, which held `rows` patches.

    A loader of ours begins there; of another one the first are read and left out, which is the
    same if it gives them in the same order.
    """
    sampler = getattr(loader, "batch_sampler", None)
    if isinstance(sampler, EpochBatches):
        sampler.set_epoch(epoch, start_batch=batches)
        return batches_of(loader, rows)
    return islice(batches_of(loader), batches, None)


class WholeBatches:
    """What the batches of `loader` are on all ranks together; this rank may hold a part of each."""

    def __init__(self, loader: Iterable[Any], ranks: Ranks) -> None:
        self._loader = loader
        self._is_alone = ranks.world_size == 1

    def num_patches(self, first: int, group: Sequence[Batch]) -> int:
        """Return how many patches the batches of `group` hold, the first of them number `first`."""
        if self._is_alone:
            return sum(len(batch.labels) for batch in group)
        size_of = self._shared.batch_sampler.size_of
        return sum(size_of(number) for number in range(first, first + len(group)))

    def index(self, number: int, batch: Batch) -> npt.NDArray[np.int64]:
        """Return the index of every patch of batch `number`, of which `batch` is what we hold."""
        if self._is_alone:
            return np.asarray(batch.index)
        whole = self._shared.batch_sampler.whole_batch(number)
        return np.asarray(self._shared.patches.indices[whole])

    @property
    def _shared(self) -> PatchLoader:
        assert isinstance(self._loader, PatchLoader), "ranks train with a loader of ours"
        return self._loader
