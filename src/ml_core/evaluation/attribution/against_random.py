"""A trained model's maps against those that the same architecture makes with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from ml_core.evaluation.attribution.centre import Box, share_in_box
from ml_core.evaluation.attribution.mean_score import mean_score
from ml_core.metrics.arrays import Floats, Ints

_OF_SHARE, _OF_DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # what a mean and its interval cannot leave


def compare_maps(
    trained: Floats,
    random: Floats,
    draw: Ints,
    y_true: Ints,
    box: Box,
    size: tuple[int, int],
    level: float = 0.95,
) -> dict[str, Any]:
    """Return how much of the attribution lies in `box`, trained and with random weights.

    `trained` and `random` are maps (N, h, w) of the same patches of `size` (height, width), labels
    `y_true` (N,); `random[i]` is of the `draw[i]`-th random weights. In the result, scores are
    {"value", "low", "high"} of a mean:

    share_in_centre          of each map's absolute values, over the patches
    share_by_label           the same for "normal" and "tumour"
    random_weights           over the draws, each of which is the mean of its patches: the interval
                             knows that other random weights would look elsewhere
    difference               trained less random on the same patches, over the draws
    correlation_with_random  Spearman's, of the two maps of a patch (Adebayo et al. 2018), its mean
    mean_map                 (h, w) mean of the maps, each as shares of its own total, so that it
    mean_map_random          sums to 1; None without a map
    num_empty                patches whose trained map is 0 everywhere, left out of all means
    num_draws                random weights that were drawn

    A single draw has no interval: how far another would lie from it is not known.
    """
    share, share_random = (share_in_box(maps, box, *size) for maps in (trained, random))
    return {
        "share_in_centre": mean_score(share, _OF_SHARE, level),
        "share_by_label": {
            name: mean_score(share[y_true == label], _OF_SHARE, level)
            for label, name in enumerate(("normal", "tumour"))
        },
        "random_weights": mean_score(_by_draw(share_random, draw), _OF_SHARE, level),
        "difference": mean_score(_by_draw(share - share_random, draw), _OF_DIFFERENCE, level),
        "correlation_with_random": _mean_correlation(trained, random),
        "mean_map": _mean_map(trained),
        "mean_map_random": _mean_map(random),
        "num_empty": int(np.isnan(share).sum()),
        "num_draws": len(np.unique(draw)),
    }


def _by_draw(values: Floats, draw: Ints) -> Floats:
    """Return the mean of the known values of each draw that has one."""
    known = np.isfinite(values)
    return np.array([values[known & (draw == each)].mean() for each in np.unique(draw[known])])


def _mean_correlation(trained: Floats, random: Floats) -> float | None:
    """Return the mean of the patches' rank correlations; a map of equal values has none."""
    from scipy.stats import rankdata

    centred = []
    for maps in (trained, random):
        ranks = rankdata(np.abs(maps).reshape(len(maps), -1), axis=1)
        centred.append(ranks - ranks.mean(axis=1, keepdims=True))
    covariance = (centred[0] * centred[1]).sum(axis=1)
    scale = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    correlations = covariance[scale > 0] / scale[scale > 0]
    return float(correlations.mean()) if len(correlations) else None


def _mean_map(maps: Floats) -> list[list[float]] | None:
    sizes = np.abs(maps)
    total = sizes.sum(axis=(1, 2))
    known = total > 0
    if not known.any():
        return None
    mean: list[list[float]] = (sizes[known] / total[known, None, None]).mean(axis=0).tolist()
    return mean
