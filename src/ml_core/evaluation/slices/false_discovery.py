"""Many tests at once: how small a share of the alarms is expected to be false."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    """Return the q-value of each p-value (N,): the false discovery rate at which it is reported.

    NaN is a test that was not made: it stays NaN and does not count. Reporting what has q <= r
    keeps the expected share of false alarms among the reported at or below r (Benjamini and
    Hochberg, JRSS B 57, 1995), for independent tests and for positively dependent ones, which the
    tests of overlapping slices are (Benjamini and Yekutieli, Annals of Statistics 29, 2001).

    Raises ValueError for a p-value outside 0..1 and an array that is not 1-d.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    if p.ndim != 1 or ((p[tested] < 0) | (p[tested] > 1)).any():
        raise ValueError(f"p_values are {p}; needed are numbers from 0 to 1, or NaN, in one row.")
    falling = tested[np.argsort(-p[tested], kind="stable")]
    ranks = np.arange(len(tested), 0, -1)
    q: Floats = np.full(len(p), np.nan)
    # the smallest rate at which this or a larger p-value is reported, hence the running minimum
    q[falling] = np.minimum.accumulate(p[falling] * len(tested) / ranks).clip(max=1)
    return q
