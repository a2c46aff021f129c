"""A slice against the rest, within strata: figures, interval and test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.discovery.discovered import Confirmed, Suggested, Target
from ml_core.evaluation.discovery.outcomes import Outcomes
from ml_core.evaluation.slices.error_counts import INSIDE, OUTSIDE, shares_of_slides
from ml_core.evaluation.slices.false_discovery import benjamini_hochberg
from ml_core.evaluation.slices.few_slides import effective_slides
from ml_core.evaluation.slices.jackknife import LeftOut
from ml_core.evaluation.slices.mantel_haenszel import mantel_haenszel_test
from ml_core.evaluation.slices.mover import interval_of_sum
from ml_core.metrics import Interval, wilson_interval
from ml_core.metrics.arrays import Floats, Ints, ratio

MIN_PATCHES = 15  # in each half: 30 in all, as for a slice that is scored

Masks = npt.NDArray[np.bool_]


def suggested_figures(mask: Masks, among: Masks, outcomes: Outcomes, target: Target) -> Suggested:
    """Return what the patches `among` say of the slice `mask`, both bool (N,)."""
    counts = _count(mask, among, outcomes, target, None).sum(axis=0)
    errors, n = counts.sum(axis=0)[:, 0], counts.sum(axis=(0, 2))
    inside, outside = (_share(errors[side], n[side]) for side in (INSIDE, OUTSIDE))
    return Suggested(int(n[INSIDE]), inside, outside, float(_difference(counts)))


def confirmed_figures(
    mask: Masks,
    among: Masks,
    outcomes: Outcomes,
    target: Target,
    slides: Ints | None,
    level: float,
) -> Confirmed:
    """Return the same with an interval and a test; `q` is left NaN.

    The difference is Mantel and Haenszel's, a mean over the strata of `outcomes`. Of single
    patches, the test is the exact one of Cochran, Mantel and Haenszel, and the interval MOVER's
    from Wilson's. With `slides` (N,), each is left out in turn: the wider interval and the larger
    p-value of the two ways stand, as for any slice. Both are NaN below MIN_PATCHES in the slice,
    where no stratum has patches on both sides, and where all that do are of one slide.
    """
    counts = _count(mask, among, outcomes, target, slides)
    summed = suggested_figures(mask, among, outcomes, target)
    errors = int(counts.sum(axis=0)[:, INSIDE, 0].sum())
    interval, p = Interval(math.nan, math.nan), math.nan
    told = _told(counts)
    if summed.n >= MIN_PATCHES and told.size:
        interval, p = _over_patches(told.sum(axis=0), level)
        if slides is not None:
            interval, p = _doubted_by_slides(interval, p, told, level)
    return Confirmed(
        n=summed.n,
        errors=errors,
        error=summed.error,
        rest_error=summed.rest_error,
        difference=summed.difference,
        low=float(interval.low),
        high=float(interval.high),
        p=float(p),
        q=math.nan,
    )


def corrected(figures: Sequence[Confirmed]) -> list[Confirmed]:
    """Return them with `q`, corrected for how many there are (Benjamini and Hochberg)."""
    q_values = benjamini_hochberg([each.p for each in figures])
    return [replace(each, q=float(q)) for each, q in zip(figures, q_values, strict=True)]


def _count(
    mask: Masks, among: Masks, outcomes: Outcomes, target: Target, slides: Ints | None
) -> Ints:
    """Return the patches by slide, stratum, side and error, (G, S, 2, 2); wrong ones first."""
    chosen = among & outcomes.concerned(target)
    strata, stratum = np.unique(outcomes.strata[chosen], return_inverse=True)
    if slides is None:
        num_slides, slide = 1, np.zeros(len(stratum), np.int64)
    else:
        names, slide = np.unique(slides[chosen], return_inverse=True)
        num_slides = max(len(names), 1)
    cells = 2 * (slide * len(strata) + stratum) + ~mask[chosen]
    cells = 2 * cells + ~outcomes.is_wrong[chosen]
    shape = (num_slides, len(strata), 2, 2)
    return np.bincount(cells, minlength=math.prod(shape)).reshape(shape)


def _told(counts: Ints) -> Ints:
    """Return the strata of `counts` (G, S, 2, 2) that have patches on both sides."""
    return counts[:, (counts.sum(axis=(0, 3)) > 0).all(axis=1)]


def _over_patches(tables: Ints, level: float) -> tuple[Interval, float]:
    """Return interval and p-value of strata `tables` (S, 2, 2), of patches drawn one by one."""
    trials = tables.sum(axis=-1)
    intervals = [
        wilson_interval(int(errors), int(size), level)
        for errors, size in zip(tables[..., 0].flat, trials.flat, strict=True)
    ]
    weights = _weights(tables)
    signs = np.outer(weights / weights.sum(), [1, -1])
    shares = ratio(tables[..., 0].astype(np.float64), trials)
    interval = interval_of_sum(signs.flat, shares.flat, intervals)
    return interval, mantel_haenszel_test(tables).p_value


def _doubted_by_slides(
    interval: Interval, p: float, counts: Ints, level: float
) -> tuple[Interval, float]:
    """Return the two with the doubt that slides add; `counts` are (G, S, 2, 2)."""
    tables = counts.sum(axis=0)
    weights = _weights(tables)
    num_slides = effective_slides(shares_of_slides(counts, weights / weights.sum()))
    left_out = LeftOut(float(_difference(tables)), _difference(tables - counts), num_slides)
    reach = left_out.reach(level)
    low = np.minimum(interval.low, np.maximum(-1.0, left_out.value - reach))
    high = np.maximum(interval.high, np.minimum(1.0, left_out.value + reach))
    return Interval(float(low), float(high)), float(np.maximum(p, left_out.p_value))


def _difference(tables: Ints) -> Floats:
    """Return Mantel and Haenszel's risk difference of strata (..., S, 2, 2), inside less outside.

    Greenland and Robins, Biometrics 41 (1985). NaN where no stratum has patches on both sides.
    """
    sizes = tables.sum(axis=-1)
    total = sizes.sum(axis=-1)
    excess = (
        tables[..., INSIDE, 0] * sizes[..., OUTSIDE] - tables[..., OUTSIDE, 0] * sizes[..., INSIDE]
    )
    weighted = np.divide(excess, total, out=np.zeros(total.shape), where=total > 0)
    weights = _weights(tables)
    return ratio(weighted.sum(axis=-1), weights.sum(axis=-1))


def _weights(tables: Ints) -> Floats:
    """Return Mantel and Haenszel's weights of strata (..., S, 2, 2), 0 for an empty one."""
    sizes = tables.sum(axis=-1).astype(np.float64)
    return np.nan_to_num(ratio(sizes.prod(axis=-1), sizes.sum(axis=-1)))


def _share(errors: Ints, n: Ints) -> float:
    return float(errors / n) if n else math.nan
