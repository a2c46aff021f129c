"""Pictures of the patches a model is most certainly wrong about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.predictions import Predictions
from ml_core.page.picture import data_uri

ReadPatches = Callable[[str, npt.NDArray[np.int64]], npt.NDArray[np.uint8]]

PATCHES_PER_GALLERY = 12


@dataclass(frozen=True)
class Example:
    """One patch: its row in the source file, what the model says, and its picture as a data URI."""

    index: int
    y_prob: float
    image: str


@dataclass(frozen=True)
class Gallery:
    """Examples of one kind of error, the most certain first, and how many there are in all."""

    title: str
    total: int
    examples: list[Example]


def build_galleries(
    predictions: Predictions, threshold: float, read_patches: ReadPatches
) -> list[Gallery]:
    """Return false alarms and missed tumours, most certain first.

    `read_patches(split, index)` gives the patches at rising rows `index`, (N, H, W, 3) uint8.
    """
    called, labels = predictions.y_prob >= threshold, predictions.labels
    false_alarms = np.flatnonzero(called & (labels == 0))
    missed = np.flatnonzero(~called & (labels == 1))
    by_certainty = {
        "Normal, called tumour": false_alarms[np.argsort(-predictions.logit[false_alarms])],
        "Tumour, called normal": missed[np.argsort(predictions.logit[missed])],
    }
    return [
        Gallery(title, len(rows), _examples(predictions, rows[:PATCHES_PER_GALLERY], read_patches))
        for title, rows in by_certainty.items()
    ]


def _examples(
    predictions: Predictions, rows: npt.NDArray[np.intp], read_patches: ReadPatches
) -> list[Example]:
    if len(rows) == 0:
        return []
    index = predictions.index[rows]
    order = np.argsort(index)
    patches = np.empty((len(rows),), dtype=object)
    patches[order] = list(read_patches(predictions.split, index[order]))
    return [
        Example(int(predictions.index[row]), float(predictions.y_prob[row]), data_uri(patch))
        for row, patch in zip(rows, patches, strict=True)
    ]
