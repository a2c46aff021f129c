"""The two halves: one suggests slices, the other has not seen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.metrics.arrays import Ints
from ml_core.reproducibility import Stream, philox_words

Masks = npt.NDArray[np.bool_]

SHARE_SUGGESTING = 0.5  # measured against a third and two thirds: docs/decisions.md
MIN_SLIDES = 10  # with fewer, a half has too few slides to tell a bad slice from a bad slide


@dataclass(frozen=True, eq=False)
class Halves:
    """Which patches suggest and which confirm, bool (N,) each; copies of a patch are in neither.

    `slides` numbers the slide of each patch, int64 (N,), where whole slides were dealt out: what
    holds on some slides is then confirmed on others. None where single patches were.
    """

    suggests: Masks
    confirms: Masks
    slides: Ints | None


def deal_slides(slides: Ints, distinct: Masks, seed: int) -> Halves:
    """Return halves of whole slides, given the number of the slide of each patch (N,)."""
    suggests = _first_half(slides, distinct, seed)
    return Halves(distinct & suggests, distinct & ~suggests, slides)


def deal_patches(index: Ints, distinct: Masks, seed: int) -> Halves:
    """Return halves of single patches, which `index` (N,) tells apart whatever their order."""
    suggests = _first_half(index, distinct, seed)
    return Halves(distinct & suggests, distinct & ~suggests, None)


def is_distinct(index: Ints, groups: npt.NDArray[np.object_] | None) -> Masks:
    """Return which patch of each group has the lowest index, bool (N,): its copies add nothing.

    `groups` (N,) names what is the same patch; None for a patch alone, and all alone without it.
    """
    if groups is None:
        return np.ones(len(index), np.bool_)
    order = np.argsort(index, kind="stable")
    named = pd.Series(groups[order])
    distinct = np.empty(len(index), np.bool_)
    distinct[order] = ~(named.duplicated() & named.notna())
    return distinct


def numbered_slides(slides: npt.NDArray[np.object_] | None, index: Ints) -> Ints | None:
    """Return a number for the slide of each patch, in the order of names; None below MIN_SLIDES.

    A patch of no known slide is a slide of its own.
    """
    if slides is None:
        return None
    known = ~(pd.isna(slides) | (slides == ""))
    names, numbers = np.unique(slides[known].astype(str), return_inverse=True)
    if len(names) < MIN_SLIDES:
        return None
    every = np.empty(len(slides), np.int64)
    every[known] = numbers
    every[~known] = len(names) + np.argsort(np.argsort(index[~known]))
    return every


def _first_half(blocks: Ints, distinct: Masks, seed: int) -> Masks:
    """Return the patches of the first blocks in an order drawn by `seed`, half of them in all."""
    numbers, block = np.unique(blocks, return_inverse=True)
    words = philox_words(seed, 1, Stream.FOLDS, len(numbers))[:, 0]
    order = np.argsort(words, kind="stable")
    sizes = np.bincount(block[distinct], minlength=len(numbers))
    is_first = np.empty(len(numbers), np.bool_)
    is_first[order] = np.cumsum(sizes[order]) - sizes[order] / 2 <= SHARE_SUGGESTING * sizes.sum()
    suggests: Masks = is_first[block]
    return suggests
