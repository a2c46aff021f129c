"""The data set made of one split."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ml_core.data.held_patches import HeldPatches
from ml_core.data.layout import (
    PATCH_KEY,
    Labels,
    check_same_length,
    load_labels,
    select_rows,
)
from ml_core.data.patch_file import PatchFile, Rows
from ml_core.data.survey import survey_patches
from ml_core.errors import DataError

log = logging.getLogger("ml_core.data")

Transform = Callable[[npt.NDArray[np.uint8]], Any]


class PatchBatch:
    """A batch read at once that can also be taken apart into (image, label) items.

    The items suit torch's default_collate; taken whole, no work is done per item.
    """

    def __init__(self, images: Tensor | list[Any], labels: Tensor, index: Tensor) -> None:
        self.images = images  # (B, 3, H, W) uint8, or what a transform made of each patch
        self.labels = labels  # (B,) long
        self.index = index  # (B,) long, rows in the source file

    def share_memory_(self) -> None:
        """Put what is a tensor where another process can have it; raises RuntimeError for no room.

        Said here it reaches the training; the thread that sends a batch would drop it unsaid.
        """
        for tensor in (self.images, self.labels, self.index):
            if isinstance(tensor, Tensor):
                # torch gives this method no types
                tensor.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, Tensor]:
        return self.images[i], self.labels[i]

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return zip(self.images, self.labels, strict=True)


class PCAMDataset(Dataset[tuple[Any, Tensor]]):
    """The patches of one split: item i is (image (3, H, W) uint8, label 0-d long).

    `.indices` are the rows of the source file that are kept, `.labels` their labels. With
    `transform`, an item's image is what it returns for the (H, W, 3) uint8 array. `filter_data`
    drops patches whose mean is not strictly between 0 and 255, in one pass over the file at
    construction. `exclude` leaves out these rows of the file, as exclusions.csv names them;
    `subset` takes at most so many of the others, evenly spaced, whatever their labels.
    Raises DataError for files that are missing, damaged, or do not belong together.
    """

    def __init__(
        self,
        x_path: str | Path,
        y_path: str | Path,
        transform: Transform | None = None,
        filter_data: bool = False,
        *,
        subset: int | None = None,
        exclude: Rows | None = None,
    ) -> None:
        self.file = PatchFile(x_path, PATCH_KEY)
        self.transform = transform
        labels = load_labels(y_path)
        check_same_length(self.file, labels, y_path)
        if not (self.file.is_flat and self.file.is_bytes):
            _say_slow(self.file.path, f"{self.file.layout}, {self.file.dtype}")
        rows = select_rows(len(self.file), subset, exclude, where=str(self.file.path))
        if filter_data:
            rows = rows[survey_patches(self.file, rows).is_informative]
            if len(rows) == 0:
                raise DataError(
                    f"{self.file.path}: filter_data leaves no patch: the mean of each is 0 or "
                    "less, 255 or more, or NaN."
                )
        self.indices: Rows = rows
        self.labels: Labels = labels[rows]
        self._held: HeldPatches | None = None

    @property
    def num_rows(self) -> int:
        """Patches in the source file, kept or not: every index is below it."""
        return len(self.file)

    @property
    def held_on(self) -> torch.device | None:
        """Where all patches are kept, if they are."""
        return None if self._held is None else self._held.device

    def hold(self, device: torch.device) -> None:
        """Read every patch once and keep them on `device`, from where batches come then.

        Raises ConfigError where memory lacks the room, DataError as reading does.
        """
        self._held = HeldPatches(self.file, self.indices, device)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Any, Tensor]:
        position = operator.index(i)
        if not -len(self) <= position < len(self):
            raise IndexError(f"patch {position} of a data set of {len(self)}")
        return self.__getitems__([position % len(self)])[0]

    def __getitems__(self, positions: Sequence[int] | Rows) -> PatchBatch:
        """Return many items, read together; sorted positions are read fastest."""
        chosen = np.asarray(positions, dtype=np.int64)
        rows = self.indices[chosen]
        if self._held is None:
            patches = torch.from_numpy(self.file.read(rows))  # (B, H, W, 3)
        else:
            patches = self._held.take(torch.from_numpy(chosen))
        images: Tensor | list[Any]
        if self.transform is not None:
            images = [self.transform(patch) for patch in patches.numpy(force=True)]
        else:
            images = patches.permute(0, 3, 1, 2)
        batch = PatchBatch(images, torch.from_numpy(self.labels[chosen]), torch.from_numpy(rows))
        if get_worker_info() is not None:
            batch.share_memory_()
        return batch


@cache  # once per file and process, however many data sets are made of it
def _say_slow(path: Path, storage: str) -> None:
    log.warning(
        "%s: stored as %s, which is read more slowly than flat uint8. Pack it once: "
        "ml-core data pack.",
        path,
        storage,
    )
