"""Wrong and right calls of a slice and of the rest, by class and by slide."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats, Ints, ratio

Bools = npt.NDArray[np.bool_]

INSIDE, OUTSIDE = 0, 1


def count_errors(labels: Ints, wrong: Bools, inside: Bools, slides: Ints | None) -> Ints:
    """Return how many patches are wrong and right, shape (G, class, side, 2).

    The slides are numbers from 0 to G - 1; where they are not known G is 1. Sides are INSIDE and
    OUTSIDE the slice. All arrays are (N,).
    """
    codes = np.zeros(len(labels), dtype=np.int64) if slides is None else slides
    cells = ((codes * 2 + labels) * 2 + ~inside) * 2 + ~wrong
    num_slides = int(codes.max()) + 1
    return np.bincount(cells, minlength=8 * num_slides).reshape(num_slides, 2, 2, 2)


def adjusted_difference(counts: Ints, weights: Floats) -> Floats:
    """Return the share of wrong calls inside minus outside, of each class, averaged by `weights`.

    `counts` are (..., class, side, 2) and `weights` (..., class), of any sum; NaN where a class
    has no patch on one side.
    """
    shares = ratio(counts[..., 0].astype(np.float64), counts.sum(axis=-1))
    differences = shares[..., INSIDE] - shares[..., OUTSIDE]
    adjusted: Floats = (weights * differences).sum(axis=-1) / weights.sum(axis=-1)
    return adjusted


def mantel_haenszel_weights(counts: Ints) -> Floats:
    """Return the weights (..., class) that make of `adjusted_difference` what the test is of.

    They are the harmonic means of the two sides' patches: most precise, but they follow the classes
    of the slice. NaN where a class has no patch at all.
    """
    sizes = counts.sum(axis=-1)
    return ratio(sizes.prod(axis=-1).astype(np.float64), sizes.sum(axis=-1))


def shares_of_slides(counts: Ints, weights: Floats) -> Floats:
    """Return what each slide brings to each class and side, (2 x class, G), times the weights.

    `counts` are (G, class, side, 2); a row adds up to the weight of its class.
    """
    sizes = counts.sum(axis=-1)
    shares: Floats = sizes / sizes.sum(axis=0) * weights[:, None]
    return shares.reshape(len(counts), -1).T
