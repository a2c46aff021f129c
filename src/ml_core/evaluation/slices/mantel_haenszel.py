"""Whether a group of patches has more errors than the rest, among patches of the same class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats, Ints

# A table as likely as the one seen, but for rounding, counts as no likelier: so does R.
_ROUNDING = 1e-7


@dataclass(frozen=True)
class MantelHaenszelTest:
    """The stratified comparison of two shares; NaN where no stratum can tell.

    `difference` is the share of hits in the group minus that in the rest, a mean over the strata
    with Mantel and Haenszel's weights; `statistic` is the chi-square of one degree of freedom,
    without continuity correction; `p_value` is exact and two-sided.
    """

    difference: float
    statistic: float
    p_value: float


def mantel_haenszel_test(tables: npt.ArrayLike) -> MantelHaenszelTest:
    """Return the Cochran-Mantel-Haenszel test of counts `tables` (S, 2, 2), one table per stratum.

    Rows are the group and the rest, columns are hits (here: errors) and others. The numerator of
    the statistic is hits of the group minus those expected with the margins of each stratum, its
    variance the hypergeometric one (Mantel and Haenszel, JNCI 22, 1959). With it goes the exact
    conditional p-value: the probability, given all margins, of a number of hits in the group that
    is no likelier than the one seen (Agresti, Categorical Data Analysis, 2013, section 7.3.5;
    mantelhaen.test(exact=TRUE) of R). So it holds its level however few errors there are; for one
    stratum it is Fisher's. Strata without a patch in the group, or in the rest, say nothing.

    Raises ValueError for anything but whole counts of that shape.
    """
    counts = np.asarray(tables)
    if counts.ndim != 3 or counts.shape[1:] != (2, 2) or (counts < 0).any():
        raise ValueError(f"tables have shape {counts.shape}; needed are counts (strata, 2, 2).")
    if not np.array_equal(counts, counts.astype(np.int64)):
        raise ValueError("tables hold fractions; needed are whole numbers of patches.")
    counts = counts.astype(np.int64)
    group, hits, total = counts[:, 0].sum(1), counts[:, :, 0].sum(1), counts.sum((1, 2))
    told = (group > 0) & (group < total)
    if not told.any():
        return MantelHaenszelTest(float("nan"), float("nan"), float("nan"))
    group, hits, total, seen = group[told], hits[told], total[told], counts[told, 0, 0]
    excess = float((seen - group * hits / total).sum())
    variance = group * (total - group) * hits * (total - hits) / (total**2 * (total - 1.0))
    spread = float(variance.sum())
    return MantelHaenszelTest(
        difference=excess / float((group * (total - group) / total).sum()),
        statistic=excess**2 / spread if spread > 0 else 0.0,
        p_value=_exact_p_value(group, hits, total, int(seen.sum())),
    )


def hypergeometric(group: int, hits: int, total: int) -> tuple[int, Floats]:
    """Return the smallest possible number of hits in the group, and the chance of it and each more.

    `hits` of `total` patches are dealt to the `group` and the rest. Each chance is a ratio of small
    numbers times the one before, so that it takes no factorials.
    """
    first = max(0, group + hits - total)
    possible = np.arange(first, min(group, hits) + 1, dtype=np.float64)
    before, after = possible[:-1], possible[1:]
    ratios = (hits - before) * (group - before) / (after * (total - hits - group + after))
    logs = np.append(0.0, np.cumsum(np.log(ratios)))
    chances: Floats = np.exp(logs - logs.max())
    chances /= chances.sum()
    return first, chances


def _exact_p_value(group: Ints, hits: Ints, total: Ints, seen: int) -> float:
    """Return the two-sided p-value of `seen` hits of the group, over strata of given margins."""
    fewest, chances = 0, np.ones(1)
    for margins in zip(group.tolist(), hits.tolist(), total.tolist(), strict=True):
        first, of_stratum = hypergeometric(*margins)
        fewest, chances = fewest + first, np.convolve(chances, of_stratum)
    as_rare = chances <= chances[seen - fewest] * (1 + _ROUNDING)
    return min(1.0, float(chances[as_rare].sum()))
