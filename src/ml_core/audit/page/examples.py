"""Patches that show what the data look like: some of each class, and the most extreme ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.page.columns import OUTLIER_STATISTICS, shown_values
from ml_core.audit.page.outliers import find_outliers
from ml_core.audit.page.thumbnails import Place
from ml_core.data.patch_file import evenly_spaced
from ml_core.page.text import signed

PER_CLASS = 6
PER_STATISTIC = 6
CLASSES = {0: "normal", 1: "tumour"}


@dataclass(frozen=True)
class Example:
    """One patch of the table and what is written beneath it."""

    place: Place
    caption: str = ""


@dataclass(frozen=True)
class Strip:
    """Patches in a row beneath a title; `total` is how many they are chosen from."""

    title: str
    total: int
    examples: tuple[Example, ...]


def class_strips(patches: pd.DataFrame, where: Mapping[str, slice]) -> list[Strip]:
    """Return evenly spaced patches of each class of each split, broken ones among them."""
    strips = []
    labels = patches["label"].to_numpy()
    for split, rows in where.items():
        for label, name in CLASSES.items():
            positions = rows.start + np.flatnonzero(labels[rows] == label)
            chosen = positions[evenly_spaced(len(positions), PER_CLASS)]
            if len(chosen):
                examples = tuple(Example(place) for place in _places(patches, chosen))
                strips.append(Strip(f"{split}, {name}", len(positions), examples))
    return strips


def outlier_strips(patches: pd.DataFrame) -> list[Strip]:
    """Return the most extreme patches of each statistic, with their robust z-scores.

    Patches that a finding names are passed over: they are shown there, and among thousands of
    black patches nothing else would be seen.
    """
    kept = np.flatnonzero(~is_flagged(patches))
    strips = []
    for column, name in OUTLIER_STATISTICS.items():
        if column not in patches:
            continue
        outliers = find_outliers(shown_values(patches, column)[kept], PER_STATISTIC)
        if not outliers:
            continue
        places = _places(patches, kept[[outlier.position for outlier in outliers]])
        examples = tuple(
            Example(place, f"z {signed(outlier.z, 1)}")
            for place, outlier in zip(places, outliers, strict=True)
        )
        strips.append(Strip(name, len(kept), examples))
    return strips


def is_flagged(patches: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return for each patch whether a finding names it, shape (n,)."""
    if "flags" not in patches:
        return np.zeros(len(patches), dtype=bool)
    return (patches["flags"].fillna("") != "").to_numpy(dtype=bool)


def captions(patches: pd.DataFrame, places: Iterable[Place]) -> dict[Place, str]:
    """Return the class of each of `places` that is in the table and labelled."""
    wanted = set(places)
    rows_by_split: dict[str, list[int]] = {}
    for split, index in sorted(wanted):
        rows_by_split.setdefault(split, []).append(index)
    named: dict[Place, str] = {}
    for split, indices in rows_by_split.items():
        table = patches[(patches["split"] == split) & patches["index"].isin(indices)]
        for index, label in zip(table["index"], table["label"], strict=True):
            if label in CLASSES:
                named[split, int(index)] = CLASSES[label]
    return named


def places_of(strips: Iterable[Strip]) -> Iterator[Place]:
    """Yield every patch that the strips show."""
    for strip in strips:
        for example in strip.examples:
            yield example.place


def _places(patches: pd.DataFrame, positions: npt.NDArray[np.int64]) -> list[Place]:
    chosen = patches.iloc[positions]
    return [
        (str(split), int(index))
        for split, index in zip(chosen["split"], chosen["index"], strict=True)
    ]
