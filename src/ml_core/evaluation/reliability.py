"""How far probabilities are from the shares of tumours they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.metrics import wilson_interval
from ml_core.metrics.arrays import Floats, Ints, checked, checked_losses

NUM_BINS = 15  # as in Guo et al., ICML 2017


@dataclass(frozen=True)
class ReliabilityBins:
    """Patches of like probability, the bins that hold any, each array (K,), rising."""

    num: Ints  # patches
    mean_prob: Floats
    share: Floats  # of tumours
    low: Floats  # its 95 % interval
    high: Floats


def calibration_scores(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, nll: npt.ArrayLike | None = None
) -> dict[str, float]:
    """Return `ece`, `ece_equal_mass`, `ece_by_chance`, `brier`, `nll`, `mean_prob`, `prevalence`.

    ECE is the mean over patches of |share of tumours - mean probability| of their bin, for 15 bins
    of the probability of tumour (Naeini, Cooper and Hauskrecht, AAAI 2015): equally wide, or
    holding equally many patches, ties kept together (Nguyen and O'Connor, EMNLP 2015). It is
    biased: also a calibrated model has one above 0, since a bin's share is of few patches.
    `ece_by_chance` is what a calibrated model with these probabilities would have on average, with
    equally wide bins: an ECE near it says nothing. `nll` (N,), the loss of each patch, is for where
    y_prob has reached 0 or 1.

    Raises ValueError for arrays that are not labels and probabilities.
    """
    labels, probs = checked(y_true, y_prob)
    losses = checked_losses(labels, probs, nll)
    wide = _equal_width(probs, NUM_BINS)
    return {
        "ece": _ece(labels, probs, wide),
        "ece_equal_mass": _ece(labels, probs, _equal_mass(probs, NUM_BINS)),
        "ece_by_chance": _ece_by_chance(probs, wide),
        "brier": float(((probs - labels) ** 2).mean()),
        "nll": float(losses.mean()),
        "mean_prob": float(probs.mean()),
        "prevalence": float(labels.mean()),
    }


def reliability_bins(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, num_bins: int = 10
) -> ReliabilityBins:
    """Return equally wide bins with the score interval of their share (Wilson, JASA 22, 1927)."""
    labels, probs = checked(y_true, y_prob)
    bins = _equal_width(probs, num_bins)
    num = np.bincount(bins, minlength=num_bins)
    held = num > 0
    tumours = np.bincount(bins, labels, num_bins)[held]
    num = num[held]
    intervals = [
        wilson_interval(int(hits), int(trials)) for hits, trials in zip(tumours, num, strict=True)
    ]
    return ReliabilityBins(
        num=num,
        mean_prob=np.bincount(bins, probs, num_bins)[held] / num,
        share=tumours / num,
        low=np.array([interval.low for interval in intervals]),
        high=np.array([interval.high for interval in intervals]),
    )


def _ece(labels: Ints, probs: Floats, bins: Ints) -> float:
    gaps = np.bincount(bins, weights=labels - probs)  # of sums, so already weighted by patches
    return float(np.abs(gaps).sum() / len(labels))


def _ece_by_chance(probs: Floats, bins: Ints) -> float:
    """Return the expected ECE of labels drawn with these probabilities, each bin's gap normal.

    The mean of |gap| is then sqrt(2 / pi) standard deviations.
    """
    variance = np.bincount(bins, weights=probs * (1 - probs))
    return float(np.sqrt(2 / np.pi * variance).sum() / len(probs))


def _equal_width(probs: Floats, num_bins: int) -> Ints:
    return np.minimum((probs * num_bins).astype(np.int64), num_bins - 1)


def _equal_mass(probs: Floats, num_bins: int) -> Ints:
    """Return the bin of each patch by its rank; equal probabilities have the rank of the first."""
    rank = np.searchsorted(np.sort(probs), probs, side="left")
    return rank * num_bins // len(probs)
