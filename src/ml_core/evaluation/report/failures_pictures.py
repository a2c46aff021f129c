"""Pictures of patches that a page shows in many places, each embedded once as a CSS class."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from ml_core.errors import MLCoreError
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.page.picture import data_uri

Place = tuple[str, int]  # split, row in the source file
Levels = npt.NDArray[np.uint8]  # (H, W, 3)

QUALITIES = (80, 65, 45)  # the lower ones where patches of noise would make the page too large
MAX_BYTES = 1_900_000  # of all of them, as text


@dataclass(frozen=True)
class Pictures:
    """Pictures by patch; `problem` says why some could not be read.

    `anchor` begins the name of each class, so that two parts of a page do not share one.
    """

    anchor: str = ""
    uris: Mapping[Place, str] = field(default_factory=dict)
    problem: str = ""

    def class_of(self, split: str, index: int) -> str:
        """Return the CSS class of a patch's picture; "" where there is none."""
        return f"{self.anchor}-{split}-{index}" if (split, index) in self.uris else ""

    def shown(self, split: str, indices: Iterable[int]) -> list[int]:
        """Return those of `indices` that have a picture, in the same order."""
        return [index for index in indices if (split, index) in self.uris]

    @property
    def css(self) -> Markup:
        """The style sheet of the pictures."""
        return Markup(
            "\n".join(
                f".{self.class_of(*place)}{{background-image:url({uri})}}"
                for place, uri in self.uris.items()
            )
        )


def first_of(*wishes: Iterable[Place], most: int) -> list[Place]:
    """Return the first `most` different places, taken from the lists in their order."""
    places = dict.fromkeys(place for wish in wishes for place in wish)
    return list(places)[:most]


def take_pictures(
    read_patches: ReadPatches | None,
    wanted: Iterable[Place],
    anchor: str,
    small: Iterable[Place] = (),
) -> Pictures:
    """Return the pictures of `wanted`, and of `small` at half the side, where they can be read.

    Together they have at most MAX_BYTES, the first first. Without `read_patches` there are none.
    """
    if read_patches is None:
        return Pictures(anchor)
    wanted = list(dict.fromkeys(wanted))
    halved = [place for place in dict.fromkeys(small) if place not in set(wanted)]
    levels, problem = read_levels(read_patches, [*wanted, *halved])
    shown = {place: levels[place] for place in wanted if place in levels}
    shown |= {place: _half(levels[place]) for place in halved if place in levels}
    return Pictures(anchor, _encode(shown), problem)


def _encode(levels: Mapping[Place, Levels]) -> dict[Place, str]:
    """Return the pictures in the best quality that fits; in the lowest, as many as fit."""
    uris: dict[Place, str] = {}
    for quality in QUALITIES:
        uris = {place: data_uri(patch, quality) for place, patch in levels.items()}
        if sum(map(len, uris.values())) <= MAX_BYTES:
            return uris
    ends = itertools.accumulate(map(len, uris.values()))
    return {
        place: uri for (place, uri), end in zip(uris.items(), ends, strict=True) if end <= MAX_BYTES
    }


def read_levels(
    read_patches: ReadPatches, places: Iterable[Place]
) -> tuple[dict[Place, Levels], str]:
    """Return the patches that can be read, and what was said of the last that cannot.

    Each split is read once, at rising rows; where that fails its patches are read one by one, so
    that a damaged patch hides only itself.
    """
    levels: dict[Place, Levels] = {}
    problem = ""
    by_split: dict[str, list[int]] = {}
    for split, index in sorted(set(places)):
        by_split.setdefault(split, []).append(index)
    for split, indices in by_split.items():
        rows = np.array(indices, dtype=np.int64)
        try:
            patches = read_patches(split, rows)
            levels |= {(split, row): patch for row, patch in zip(indices, patches, strict=True)}
        except (MLCoreError, OSError):
            for row in indices:
                try:
                    levels[split, row] = read_patches(split, np.array([row]))[0]
                except (MLCoreError, OSError) as error:
                    problem = str(error)
    return levels, problem


def _half(patch: Levels) -> Levels:
    """Return every two by two pixels as their mean, which a thumbnail of a neighbour needs."""
    height, width = patch.shape[0] // 2 * 2, patch.shape[1] // 2 * 2
    blocks = patch[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    half: Levels = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return half
