"""How often chance alone makes an adjusted difference as large as the one seen, counted out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.slices.mantel_haenszel import hypergeometric
from ml_core.metrics.arrays import Floats, Ints

# A difference as large as the one seen, but for rounding, is as large.
_ROUNDING = 1e-9


def exact_p_value(tables: Ints, weights: npt.ArrayLike) -> float:
    """Return the two-sided p-value of the difference in shares, averaged over strata by `weights`.

    `tables` (S, 2, 2) are counts of each stratum: rows are the group and the rest, columns hits and
    others; each row has a patch. Given how many hits a stratum has, and if they fell on the group
    by chance, their number there is hypergeometric. The p-value is the probability of an average at
    least as far from 0, over all ways of falling: a permutation test within strata without drawing.

    The Cochran-Mantel-Haenszel test is this with weights of its own, which follow the strata of the
    group. Where one class has more errors in a slice and the other fewer, those weights may cancel
    the difference that `weights` show, or turn it round.
    """
    totals, chances = np.zeros(1), np.ones(1)
    *others, last = (_chances(*each) for each in zip(tables, np.asarray(weights), strict=True))
    for differences, probabilities in others:
        totals = np.add.outer(totals, differences).ravel()
        chances = np.multiply.outer(chances, probabilities).ravel()
    shares = tables[..., 0] / tables.sum(axis=-1)
    seen = abs(float(((shares[:, 0] - shares[:, 1]) * weights).sum())) * (1 - _ROUNDING)
    differences, probabilities = last
    below = np.append(0.0, np.cumsum(probabilities))
    above = np.append(np.cumsum(probabilities[::-1])[::-1], 0.0)  # summed apart: small tails
    as_low = below[np.searchsorted(differences, -seen - totals, side="right")]
    as_high = above[np.searchsorted(differences, seen - totals, side="left")]
    return min(1.0, float((chances * (as_low + as_high)).sum()))


def _chances(table: Ints, weight: float) -> tuple[Floats, Floats]:
    """Return the weighted differences that a stratum can show, rising, and the chance of each."""
    (hits_inside, _), (hits_outside, _) = table
    inside, outside = table.sum(axis=1)
    hits = int(hits_inside + hits_outside)
    first, probabilities = hypergeometric(int(inside), hits, int(inside + outside))
    possible = first + np.arange(len(probabilities))
    differences: Floats = weight * (possible / inside - (hits - possible) / outside)
    return differences, probabilities
