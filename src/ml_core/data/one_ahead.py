"""Batches that are read, and copied to a GPU, while the step before them is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from ml_core.data.loader import Batch

T = TypeVar("T")


def one_ahead(take: Callable[[], T | None], begin: Callable[[], None] | None = None) -> Iterator[T]:
    """Yield what `take` returns until that is None; each is taken while the last one is in use.

    By a thread, one call at a time, after a call of `begin`. What `take` raises is raised here, in
    its turn.
    """
    with ThreadPoolExecutor(
        max_workers=1, thread_name_prefix="one ahead", initializer=begin
    ) as thread:
        coming = thread.submit(take)
        while (taken := coming.result()) is not None:
            coming = thread.submit(take)
            yield taken


def ahead_on_gpu(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield `batches`, which lie in pinned memory, with their images on the GPU `device`.

    The next one is copied by a stream of its own while the caller's computes. Labels and index stay
    on the host, where the loop counts with them.
    """
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types

    def take() -> tuple[Batch, Any] | None:
        with torch.cuda.stream(beside):
            batch = next(batches, None)
            if batch is None:
                return None
            # pinned memory that is let go is not used again before the copy is done: torch's
            # allocator of it waits for the streams that read from it
            images = batch.images.to(beside.device, non_blocking=True)
            return batch._replace(images=images), beside.record_event()

    # a thread begins on GPU 0, where leaving the stream would open a context for each rank
    for batch, copied in one_ahead(take, partial(torch.cuda.set_device, beside.device)):
        computing = torch.cuda.current_stream(beside.device)
        computing.wait_event(copied)
        # the memory belongs to the other stream: without this the next batch could be put there
        # before the caller's kernels have read it
        batch.images.record_stream(computing)
        yield batch
