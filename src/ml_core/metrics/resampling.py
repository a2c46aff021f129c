"""Bootstrap resamples: how often each patch is drawn, from keyed words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ml_core.metrics.arrays import Floats, Ints
from ml_core.reproducibility import Stream, philox_words

T = TypeVar("T")

BLOCK_CELLS = 2**18  # resamples x patches held at once: arrays of 2 MB stay near the processor
MAX_THREADS = 4  # each holds a block and what is made of it; drawing itself gains nothing from more


def resamples(seed: int, num_resamples: int, num_patches: int) -> Iterator[Floats]:
    """Yield how often each resample draws each patch, in blocks of shape (R, num_patches).

    The blocks' rows together are `num_resamples`, in order. Each resample draws `num_patches`
    patches with replacement (Efron and Tibshirani 1993, chapter 6) from words that depend on
    (seed, resample) only: whoever asks with the same numbers gets the same resamples, so that two
    models can be compared on them, and no numpy release can change them. Column i is the i-th patch
    in whatever order the caller has put them; put them in one that the file's rows cannot change.
    """
    for numbers in _blocks(num_resamples, num_patches):
        yield _weights(seed, numbers, num_patches)


def map_resamples(
    function: Callable[[Floats], T],
    seed: int,
    num_resamples: int,
    num_patches: int,
    num_threads: int | None = None,
) -> list[T]:
    """Return `function(weights)` of each block of `resamples`, in order, with several threads.

    The default is one for each processor this process may use, up to MAX_THREADS: numpy lets go of
    the interpreter while it computes. Their number changes nothing but the time.
    """

    def apply(numbers: range) -> T:
        return function(_weights(seed, numbers, num_patches))

    blocks = _blocks(num_resamples, num_patches)
    num_threads = min(len(blocks), num_threads or _default_threads())
    if num_threads == 1:
        return [apply(numbers) for numbers in blocks]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(apply, blocks))


def _blocks(num_resamples: int, num_patches: int) -> list[range]:
    size = max(1, BLOCK_CELLS // num_patches)
    return [
        range(first, min(first + size, num_resamples)) for first in range(0, num_resamples, size)
    ]


def _weights(seed: int, numbers: range, num_patches: int) -> Floats:
    weights = np.empty((len(numbers), num_patches))
    for row, number in enumerate(numbers):
        weights[row] = np.bincount(_drawn(seed, number, num_patches), minlength=num_patches)
    return weights


def _drawn(seed: int, number: int, num_patches: int) -> Ints:
    """Return the patches that one resample draws, shape (num_patches,), in no useful order."""
    words = philox_words(seed, number, Stream.BOOTSTRAP, -(-num_patches // 8)).ravel()
    halves = np.concatenate([words >> np.uint64(32), words & np.uint64(2**32 - 1)])[:num_patches]
    # Multiply and shift instead of modulo: one patch is favoured by less than n / 2**32.
    halves *= np.uint64(num_patches)
    halves >>= np.uint64(32)
    return halves.view(np.int64)


def _default_threads() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return min(MAX_THREADS, len(os.sched_getaffinity(0)))
    return min(MAX_THREADS, os.cpu_count() or 1)
