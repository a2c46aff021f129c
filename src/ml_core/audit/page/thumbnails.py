"""Pictures of single patches as data URIs, read together and made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.errors import DataError
from ml_core.page.picture import JPEG_QUALITY, data_uri

# read(split, rows): the patches at rising rows of the source file, (n, H, W, 3) uint8 levels.
ReadPatches = Callable[[str, npt.NDArray[np.int64]], npt.NDArray[np.uint8]]
Place = tuple[str, int]  # split, row in the source file

# The lower ones where the page would grow too large, as with patches of nothing but noise.
JPEG_QUALITIES = (JPEG_QUALITY, 75, 50)
MAX_BYTES = 5_200_000  # of all pictures of the page, as the text of URIs


@dataclass(frozen=True)
class Thumbnails:
    """Data URIs by patch, and what was said about those that could not be read."""

    images: Mapping[Place, str]
    problems: tuple[str, ...] = ()


def load_thumbnails(read: ReadPatches, wanted: Iterable[Place]) -> Thumbnails:
    """Return a picture of each wanted patch that can be read; one wanted twice is shown twice.

    Each split is read once, at rising rows. Where that fails, its patches are read one by one, so
    that a damaged patch hides only itself.
    """
    times_shown = Counter(wanted)
    by_split: dict[str, list[int]] = {}
    for split, index in sorted(times_shown):
        by_split.setdefault(split, []).append(index)
    levels: dict[Place, npt.NDArray[np.uint8]] = {}
    problems: dict[str, None] = {}  # in order, each once
    for split, indices in by_split.items():
        rows = np.array(indices, dtype=np.int64)
        try:
            patches = read(split, rows)
            levels |= {(split, row): patch for row, patch in zip(indices, patches, strict=True)}
        except (DataError, OSError):
            for row in indices:
                try:
                    levels[split, row] = read(split, np.array([row], dtype=np.int64))[0]
                except (DataError, OSError) as error:
                    problems[str(error)] = None
    return Thumbnails(_encode(levels, times_shown), tuple(problems))


def _encode(
    levels: Mapping[Place, npt.NDArray[np.uint8]], times_shown: Mapping[Place, int]
) -> dict[Place, str]:
    """Return the pictures in the best quality with which the page is not too large."""
    images: dict[Place, str] = {}
    for quality in JPEG_QUALITIES:
        images = {place: data_uri(patch, quality) for place, patch in levels.items()}
        if sum(len(uri) * times_shown[place] for place, uri in images.items()) <= MAX_BYTES:
            break
    return images
