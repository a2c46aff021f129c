"""Which patches show the same spot again: mirrored, turned, moved by a pixel, re-encoded.

Three sieves, each finer and dearer per pair than the one before:

1. a search tree over what no orientation changes in the descriptors proposes neighbours;
2. the descriptors are compared in all orientations, of which the best is kept;
3. the pixels are laid over each other, turned so and moved by up to two pixels each way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.audit.measures.block import LUMA
from ml_core.audit.measures.fingerprint import NUM_FREQUENCIES, mirror_signs

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
Read = Callable[[Positions], npt.NDArray[np.uint8]]

# First sieve. The lowest 5 frequencies say most and move least: 98 % of copies moved by a pixel
# both ways are within the radius, and so are 2,502 of the 240 million pairs of real patches. With
# 10 components there are a quarter as many, and the search takes twice as long.
_COARSE_FREQUENCIES = 5
_NUM_COMPONENTS = 8
_RADIUS = 0.095
_NUM_NEIGHBOURS = 32
# Where more patches than this are expected within the radius, the tree is of no help and a look at
# each would take time without bound. Of 21,943 real patches none has more than 7.
_MAX_EXPECTED = 1000
_NUM_SAMPLED = 2000
_LEAF_SIZE = 64
_ROWS_AT_ONCE = 8192
_CACHED_ROWS = 256  # times the sample: 2 MB

# Second sieve: 99 % of copies moved by a pixel both ways have a cosine of at least 0.953, and 41 of
# the 240 million pairs of real patches pass.
_MIN_COSINE = 0.94

# Third sieve.
_MAX_SHIFT = 2
_FINE_WIDTH, _BROAD_WIDTH = 3, 15  # pixels
_LEAST_STRENGTH = 4.0  # grey levels; details of glass stay weak, being JPEG's noise
# Of patches alike in their descriptors but not the same, none reaches 0.37; 99 % of copies with
# texture exceed 0.91, and of the flattest, encoded again at quality 50, 0.66.
_MIN_CORRELATION = 0.55
_MAX_VERIFIED = 50_000
_PAIRS_AT_ONCE = 64

# What is done to the first patch of a pair to lay it over the second: transposed or not, then
# mirrored as in `mirror_signs`.
_ORIENTATIONS = (
    "same orientation",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "mirrored along the diagonal",
    "turned by 270 degrees",
    "turned by 90 degrees",
    "mirrored along the other diagonal",
)


@dataclass(frozen=True)
class NearDuplicates:
    """The pairs found, the most alike first, and what was not looked at."""

    pairs: Positions  # (k, 2) positions in the table, the smaller first
    relations: tuple[str, ...]  # k: what makes the second of the first, "turned by 90 degrees"
    correlations: Floats  # (k,) of their details when laid over each other
    num_crowded: int  # patches with so many alike that not all could be compared
    num_unverified: int  # likely pairs beyond the first 50,000, whose pixels were not compared


def find_near_duplicates(
    descriptors: Floats, candidates: Positions, read: Read, max_verified: int = _MAX_VERIFIED
) -> NearDuplicates:
    """Return the pairs among `candidates` that show the same spot of tissue.

    `descriptors` (n, 64) are those of `measure_fingerprint` for the whole table, `candidates`
    rising positions in it: patches with some texture, no two of them equal. `read` is asked only
    for the pixels of likely pairs, of which the `max_verified` most alike are verified.

    Found: the eight orientations (four where height and width differ), a shift by a pixel each way,
    another JPEG quality from 50 on, brightness and contrast, and one orientation together with one
    of the others. Found in part: a shift by two pixels, three quarters of them one way, a quarter
    both ways. Not found: crops that overlap less, turns by other angles, other magnifications.
    """
    if len(candidates) < 2:
        return NearDuplicates(np.empty((0, 2), np.int64), (), np.empty(0, np.float32), 0, 0)
    _, height, width, _ = read(candidates[:1]).shape
    points = _principal_components(descriptors, candidates)
    crowded = _is_crowded(points)
    rows, num_cut = _neighbours(points[~crowded])
    pairs = candidates[~crowded][rows]
    cosines, orientations = _compare_descriptors(descriptors, pairs, turns=height == width)
    best = np.argsort(-cosines, kind="stable")[: (cosines >= _MIN_COSINE).sum()]
    num_unverified = max(0, len(best) - max_verified)
    best = np.sort(best[:max_verified])  # by position, so that near rows are read together
    found, relations, correlations = _verify(pairs[best], orientations[best], read)
    order = np.argsort(-correlations, kind="stable")
    return NearDuplicates(
        found[order],
        tuple(relations[i] for i in order),
        correlations[order],
        int(crowded.sum()) + num_cut,
        num_unverified,
    )


def _invariants(spectra: Floats) -> Floats:
    """Return (n, 24): what is the same in (n, 8, 8) spectra of all orientations of a patch.

    Mirroring changes no sign where both frequencies are even, and transposing exchanges [u, v] and
    [v, u]: their sum and the size of their difference stay.
    """
    columns = []
    for u in range(_COARSE_FREQUENCIES):
        for v in range(u, _COARSE_FREQUENCIES):
            one, other = spectra[:, u, v], spectra[:, v, u]
            if u % 2 or v % 2:
                one, other = np.abs(one), np.abs(other)
            if u < v:
                columns += [(one + other) / np.sqrt(2), np.abs(one - other) / np.sqrt(2)]
            elif u > 0:
                columns.append(one)
    return np.stack(columns, axis=1).astype(np.float32)


def _principal_components(descriptors: Floats, candidates: Positions) -> Floats:
    """Return (n, 8): the invariants of the candidates along the axes in which they vary most."""
    invariants = np.concatenate(
        [_invariants(_spectra(descriptors[rows])) for rows in _pieces(candidates, _ROWS_AT_ONCE)]
    )
    invariants -= invariants.mean(axis=0)
    _, axes = np.linalg.eigh(invariants.T @ invariants)  # by rising variance
    points: Floats = invariants @ axes[:, -_NUM_COMPONENTS:]
    return points


def _is_crowded(points: Floats) -> npt.NDArray[np.bool_]:
    """Tell which points (n, d) have over 1,000 others within the radius, judged by a sample."""
    n = len(points)
    sample = points[np.linspace(0, n - 1, min(n, _NUM_SAMPLED)).astype(np.int64)]
    allowed = _MAX_EXPECTED * len(sample) / n
    # |a - b|^2 < r^2 where 2 a b - |b|^2 > |a|^2 - r^2
    projection = np.concatenate([2 * sample, -(sample**2).sum(axis=1, keepdims=True)], axis=1).T
    extended = np.concatenate([points, np.ones((n, 1), np.float32)], axis=1)
    least = (points**2).sum(axis=1, keepdims=True) - _RADIUS**2
    num_near = [
        np.count_nonzero(extended[rows] @ projection > least[rows], axis=1)
        for rows in _pieces(np.arange(n), _CACHED_ROWS)
    ]
    return np.concatenate(num_near) > allowed


def _neighbours(points: Floats) -> tuple[Positions, int]:
    """Return the pairs (k, 2) of rows of `points` within the radius, and the number of rows cut.

    Each row looks at its nearest 32 only; cut are those with more, some of whose pairs may lack.
    """
    from scipy.spatial import cKDTree

    n = len(points)
    if n == 0:
        return np.empty((0, 2), np.int64), 0
    keys, num_cut = [], 0
    # not balanced: that would sort equal points over and over
    tree = cKDTree(points, leafsize=_LEAF_SIZE, balanced_tree=False)
    for rows in _pieces(tree.indices, _ROWS_AT_ONCE):  # near ones in turn: twice as fast
        _, near = tree.query(points[rows], _NUM_NEIGHBOURS + 1, distance_upper_bound=_RADIUS)
        num_cut += int((near[:, -1] < n).sum())  # n stands for no neighbour
        one, other = np.repeat(rows, near.shape[1]), near.ravel()
        there = (other < n) & (other != one)
        one, other = one[there], other[there]
        keys.append(np.minimum(one, other) * n + np.maximum(one, other))
    key = np.unique(np.concatenate(keys))  # most pairs were seen from both ends
    return np.stack([key // n, key % n], axis=1), num_cut


def _compare_descriptors(
    descriptors: Floats, pairs: Positions, turns: bool
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return for each pair the largest cosine over all orientations, and at which that is.

    It is the first of the pair that is oriented, in quarter turns too if `turns`.
    """
    cosines, orientations = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    signs = mirror_signs().reshape(4, -1).T
    for rows in _pieces(pairs, _ROWS_AT_ONCE):
        first, second = _spectra(descriptors[rows[:, 0]]), descriptors[rows[:, 1]]
        products = first.reshape(len(rows), -1) * second @ signs
        if turns:
            turned = first.transpose(0, 2, 1).reshape(len(rows), -1)
            products = np.concatenate([products, turned * second @ signs], axis=1)
        best = products.argmax(axis=1)
        orientations.append(best)
        cosines.append(products[np.arange(len(best)), best])
    return np.concatenate(cosines), np.concatenate(orientations)


def _verify(
    pairs: Positions, orientations: npt.NDArray[np.int64], read: Read
) -> tuple[Positions, list[str], Floats]:
    """Return the pairs whose pixels agree, how they relate, and how well they agree."""
    kept, relations, correlations = [], [], []
    for part in _pieces(np.arange(len(pairs)), _PAIRS_AT_ONCE):
        wanted, where = np.unique(pairs[part], return_inverse=True)
        texture = _texture(read(wanted))
        for row, (one, other) in zip(part, where.reshape(-1, 2), strict=True):
            turned = _orient(texture[one], int(orientations[row]))
            correlation, shift = _overlay(turned, texture[other])
            if correlation >= _MIN_CORRELATION:
                kept.append(row)
                relations.append(_relation(int(orientations[row]), shift))
                correlations.append(correlation)
    return pairs[np.array(kept, np.int64)], relations, np.array(correlations, np.float32)


def _texture(levels: npt.NDArray[np.uint8]) -> Floats:
    """Return the details of patches (n, H, W, 3), as strong everywhere: (n, H, W).

    Of the luma, what is larger than JPEG's noise and smaller than a cell, over its strength nearby.
    In the luma itself two patches with the edge of the tissue in the same place correlate by 0.95,
    in its details by 0.70 as long as the edge outweighs all else, and in this by 0.36.
    """
    from scipy.ndimage import uniform_filter

    fine, broad = (1, _FINE_WIDTH, _FINE_WIDTH), (1, _BROAD_WIDTH, _BROAD_WIDTH)
    luma = levels.astype(np.float32) @ LUMA
    detail = uniform_filter(luma, fine) - uniform_filter(luma, broad)
    strength = np.sqrt(uniform_filter(detail**2, broad) + _LEAST_STRENGTH**2)
    return np.asarray(detail / strength, np.float32)


def _orient(image: Floats, orientation: int) -> Floats:
    """Return `image` (H, W) in an orientation, numbered as in `_ORIENTATIONS`."""
    image = image.T if orientation >= 4 else image
    image = image[:, ::-1] if orientation % 2 else image
    return image[::-1] if orientation % 4 >= 2 else image


def _overlay(first: Floats, second: Floats) -> tuple[float, tuple[int, int]]:
    """Return the correlation of two images (H, W) at the best shift, and that shift (down, right).

    Pearson's correlation over the inner part of `first`, so that brightness and gain drop out.
    """
    margin = _MAX_SHIFT
    inner = first[margin:-margin, margin:-margin]
    windows = np.lib.stride_tricks.sliding_window_view(second, inner.shape)  # (5, 5, h, w)
    products = np.einsum("ijyx,yx->ij", windows, inner - inner.mean())
    row, column = np.unravel_index(products.argmax(), products.shape)
    window = windows[row, column]
    length = window.std() * inner.std() * inner.size
    correlation = float(products[row, column] / length) if length > 0 else 0.0
    return correlation, (int(row) - margin, int(column) - margin)


def _relation(orientation: int, shift: tuple[int, int]) -> str:
    words = [_ORIENTATIONS[orientation]] if orientation else []
    if shift != (0, 0):
        words.append(f"moved by {shift[0]} down and {shift[1]} right")
    return ", ".join(words) or "same place, other pixel values"


def _spectra(descriptors: Floats) -> Floats:
    return descriptors.reshape(-1, NUM_FREQUENCIES, NUM_FREQUENCIES)


def _pieces(rows: Positions, size: int) -> Iterator[Positions]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
