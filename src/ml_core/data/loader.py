"""Batches of patches: in which order, and by what loader."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from ml_core.data.exclusions import load_exclusions
from ml_core.data.layout import Labels, split_paths
from ml_core.data.one_ahead import ahead_on_gpu
from ml_core.data.pcam import PatchBatch, PCAMDataset
from ml_core.data.reader_process import readers_born_deaf, serve_trainer
from ml_core.data.worker_faults import in_plain_words
from ml_core.distributed import ALONE, Ranks
from ml_core.errors import ConfigError, DataError
from ml_core.reproducibility import Stream, philox_words

Positions = npt.NDArray[np.int64]
Share = Literal["micro_batches", "batches"]

_MIX_COLUMN = 2  # of a row's four words; columns 0 and 1 order the two classes


class Batch(NamedTuple):
    """What the loader yields."""

    images: Tensor  # (B, 3, H, W) uint8, a view of (B, H, W, 3) memory; on the host or a GPU
    labels: Tensor  # (B,) long, on the host
    # (B,) long, on the host: rows in the source file. A tuple's own method has that name too.
    index: Tensor  # type: ignore[assignment]


def epoch_order(labels: Labels, seed: int, epoch: int, balanced: bool) -> Positions:
    """Return the positions that `epoch` visits, as many as there are labels.

    Unbalanced: a permutation. Balanced: half from each class, each class going through endless
    permutations of its members from epoch to epoch, so that nothing comes back before all of its
    class were seen; on a balanced set that is an ordinary permutation again.
    """
    num_draws = len(labels)
    if not balanced:
        return _permutation(seed, epoch, num_draws, _MIX_COLUMN)
    num_positive = num_draws // 2
    draws = [
        _class_draws(np.flatnonzero(labels == label), seed, epoch, count, label)
        for label, count in ((0, num_draws - num_positive), (1, num_positive))
    ]
    return np.concatenate(draws)[_permutation(seed, epoch, num_draws, _MIX_COLUMN)]


def _class_draws(members: Positions, seed: int, epoch: int, count: int, label: int) -> Positions:
    """Return draws epoch * count, ..., of the endless row of permutations of `members`."""
    if len(members) == 0:
        raise DataError(f"no patch of class {label}: sampling balanced by class needs both.")
    first, last = epoch * count, (epoch + 1) * count
    turns = range(first // len(members), -(-last // len(members)))
    rounds = [members[_permutation(seed, turn, len(members), label)] for turn in turns]
    skipped = first - turns.start * len(members)
    return np.concatenate([members[:0], *rounds])[skipped : skipped + count]


def _permutation(seed: int, epoch: int, num: int, column: int) -> Positions:
    words = philox_words(seed, epoch, Stream.ORDER, num)[:, column]
    return np.argsort(words, kind="stable")


class EpochBatches(Sampler[list[int]]):
    """The batches of positions of one epoch: a function of (seed, epoch), nothing else.

    Which patches meet in a batch is random; within it they are sorted, for sequential reads,
    since their order does not change the mean gradient. Without `shuffle`, file order.

    Several `ranks` share an epoch, each patch once. To train, `share` is micro_batches: each batch
    is cut into pieces of `micro_batch` rows, the last may be smaller, and piece m is for rank
    m % world_size; a rank gets its pieces of every batch in one list, which may be empty. To
    predict, `share` is batches: batch i is for rank i % world_size, whole, and so has the bits that
    it has for one rank.
    """

    def __init__(
        self,
        labels: Labels,
        batch_size: int,
        *,
        shuffle: bool,
        balanced: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        micro_batch: int | None = None,
        ranks: Ranks = ALONE,
        share: Share = "micro_batches",
    ) -> None:
        assert share == "batches" or micro_batch or ranks.world_size == 1, "what would be shared?"
        self.labels = labels
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.balanced = balanced
        self.seed = seed
        self.drop_last = drop_last
        self.micro_batch = micro_batch or batch_size
        self.ranks = ranks
        self.share = share
        self.epoch = 0
        self.start_batch = 0
        self._kept: tuple[int, Positions] | None = None  # the order of an epoch

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch; a run resumed in its middle skips batches without reading them."""
        self.epoch = epoch
        self.start_batch = start_batch

    @property
    def num_batches(self) -> int:
        """Batches of a whole epoch."""
        whole, rest = divmod(len(self.labels), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def size_of(self, number: int) -> int:
        """Return how many patches batch `number` of an epoch has, on all ranks together."""
        return min(self.batch_size, len(self.labels) - number * self.batch_size)

    def __len__(self) -> int:
        """Batches still to come for this rank in this epoch."""
        return len(self._own_batches())

    def __iter__(self) -> Iterator[list[int]]:
        return self._batches(self.epoch)

    def _batches(self, epoch: int) -> Iterator[list[int]]:
        order = self._order_of(epoch)
        for number in self._own_batches():
            batch = self._cut(order, number)
            yield (batch if self.share == "batches" else self._own_pieces(batch)).tolist()

    def whole_batch(self, number: int) -> Positions:
        """Return the positions of batch `number` of this epoch, on all ranks together."""
        if self._kept is None or self._kept[0] != self.epoch:
            self._kept = self.epoch, self._order_of(self.epoch)
        return self._cut(self._kept[1], number)

    def _order_of(self, epoch: int) -> Positions:
        if self.shuffle:
            return epoch_order(self.labels, self.seed, epoch, self.balanced)
        return np.arange(len(self.labels))

    def _cut(self, order: Positions, number: int) -> Positions:
        return np.sort(order[number * self.batch_size : (number + 1) * self.batch_size])

    def _own_batches(self) -> range:
        """Return the numbers of the batches still to come of which this rank gets something."""
        if self.share == "micro_batches":
            return range(self.start_batch, self.num_batches)
        rank, world_size = self.ranks.rank, self.ranks.world_size
        first = self.start_batch + (rank - self.start_batch) % world_size
        return range(first, self.num_batches, world_size)

    def _own_pieces(self, batch: Positions) -> Positions:
        """Return the rows of `batch` that are this rank's, in order."""
        if self.ranks.world_size == 1:
            return batch
        pieces = np.arange(len(batch)) // self.micro_batch
        own: Positions = batch[pieces % self.ranks.world_size == self.ranks.rank]
        return own


class _NewOrderEachTime(EpochBatches):
    """For loops that know no epochs: each iteration goes on to the next one."""

    def __iter__(self) -> Iterator[list[int]]:
        # runs at the first batch only: with workers, torch makes iterators that it never reads
        epoch, self.epoch = self.epoch, self.epoch + 1
        yield from self._batches(epoch)


class PatchLoader(DataLoader[Any]):
    """torch's DataLoader over whole batches; an error met in a worker reads as met here.

    With a `gpu`, the batch after the one in use is read and copied there meanwhile.
    """

    batch_sampler: EpochBatches
    gpu: torch.device | None = None

    @property
    def patches(self) -> PCAMDataset:
        """The data set, by its own type."""
        assert isinstance(self.dataset, PCAMDataset)
        return self.dataset

    def __iter__(self) -> Any:
        if not self.num_workers:
            batches = super().__iter__()
            return batches if self.gpu is None else ahead_on_gpu(batches, self.gpu)
        context = self.multiprocessing_context or multiprocessing
        with readers_born_deaf(context.get_start_method()):
            batches = super().__iter__()
        return in_plain_words(batches)


def build_loader(
    dataset: PCAMDataset,
    batch_size: int,
    *,
    shuffle: bool,
    balanced: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    drop_last: bool = False,
    prefetch_factor: int | None = None,
    start_method: str | None = None,
    micro_batch: int | None = None,
    ranks: Ranks = ALONE,
    share: Share = "micro_batches",
) -> PatchLoader:
    """Return a loader of Batch, the same batches for any number of workers or start method.

    `loader.batch_sampler.set_epoch(epoch, start_batch)` chooses the epoch before each iteration.
    What each of several `ranks` gets is said at `EpochBatches`; it may be a Batch of no patch. The
    rest is said at `loader_of`.
    """
    batches = EpochBatches(
        dataset.labels,
        batch_size,
        shuffle=shuffle,
        balanced=balanced,
        seed=seed,
        drop_last=drop_last,
        micro_batch=micro_batch,
        ranks=ranks,
        share=share,
    )
    return loader_of(
        dataset,
        batches,
        num_workers=num_workers,
        device=device,
        prefetch_factor=prefetch_factor,
        start_method=start_method,
    )


def loader_of(
    dataset: PCAMDataset,
    batches: EpochBatches,
    *,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    prefetch_factor: int | None = None,
    start_method: str | None = None,
) -> PatchLoader:
    """Return a loader of the `batches` of `dataset`, as Batch.

    `device` is where they will go: to a GPU from pinned memory, and without workers their images
    are there when they are asked for. Raises ConfigError for workers and a data set that is held in
    memory, of which each of them would need its own.
    """
    device = torch.device(device)
    if num_workers and dataset.held_on is not None:
        raise ConfigError(
            f"the patches are held in the memory of {dataset.held_on}, and {num_workers} reader "
            "processes are asked for. Set data.num_workers to 0, or data.placement to file."
        )
    is_to_copy = device.type == "cuda" and dataset.held_on in (None, torch.device("cpu"))
    loader = PatchLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=is_to_copy,
        prefetch_factor=prefetch_factor,
        multiprocessing_context=start_method if num_workers else None,
        worker_init_fn=serve_trainer,
        persistent_workers=num_workers > 0,
        # its own generator: a loader draws a number at each iteration, which must not shift the
        # global one that dropout uses
        generator=torch.Generator().manual_seed(batches.seed),
    )
    loader.gpu = device if is_to_copy else None
    return loader


def collate(items: Any) -> Batch:
    """Return the Batch that was read as a whole; only transformed images are stacked."""
    assert isinstance(items, PatchBatch)
    images = items.images
    return Batch(
        images if isinstance(images, Tensor) else default_collate(images), items.labels, items.index
    )


def collate_pairs(items: Any) -> tuple[Tensor, Tensor]:
    """Return (images, labels), the batches of the course."""
    batch = collate(items)
    return batch.images, batch.labels


def get_dataloaders(config: Mapping[str, Any]) -> tuple[PatchLoader, PatchLoader]:
    """Return (train, valid) loaders of (images (B, 3, H, W) uint8, labels (B,) long).

    `config` is the nested dictionary of the course; only `data.data_path` must be there. Read
    besides: `seed` (42), `data.batch_size` (32), `data.num_workers` (0), `data.filter_data`
    (False), `data.max_patches` (all), `data.exclusions` (none: the path of a list of patches to
    leave out, as `ml-core audit` writes it). Train is balanced by class, in a new order each time
    it is iterated; valid is in file order.
    """
    data = config.get("data") or {}
    if "data_path" not in data:
        raise ConfigError("config has no data.data_path: the folder of the PCam files.")
    seed = int(config.get("seed", 42))
    num_workers = int(data.get("num_workers", 0))
    excluded = load_exclusions(data["exclusions"]) if data.get("exclusions") else {}
    loaders = []
    for split in ("train", "valid"):
        paths = split_paths(data["data_path"], split)
        dataset = PCAMDataset(
            paths.x,
            paths.y,
            filter_data=bool(data.get("filter_data", False)),
            subset=data.get("max_patches"),
            exclude=excluded.get(split),
        )
        sampler = _NewOrderEachTime(
            dataset.labels,
            int(data.get("batch_size", 32)),
            shuffle=split == "train",
            balanced=split == "train",
            seed=seed,
        )
        loaders.append(
            PatchLoader(
                dataset,
                batch_sampler=sampler,
                collate_fn=collate_pairs,
                num_workers=num_workers,
                worker_init_fn=serve_trainer,
                persistent_workers=num_workers > 0,
                generator=torch.Generator().manual_seed(seed),
            )
        )
    return loaders[0], loaders[1]
