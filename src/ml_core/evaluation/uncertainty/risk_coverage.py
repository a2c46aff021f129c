"""The error rate among the patches a model is surest of, for every share of them.

El-Yaniv and Wiener, JMLR 11 (2010), for risk and coverage; Geifman, Uziel and El-Yaniv, ICLR 2019,
for the area under the curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.seed_calls import calls_of
from ml_core.metrics import map_resamples, tie_ends, wilson_interval
from ml_core.metrics.arrays import Floats, Ints
from ml_core.metrics.interval import Interval, logit_interval

MAX_POINTS = 101


@dataclass(frozen=True)
class Ranked:
    """Patches by falling confidence; those of equal confidence can only be kept together."""

    confidence: Floats  # (N,) log-odds that the call is right, falling
    is_wrong: npt.NDArray[np.bool_]  # (N,)
    ends: Ints  # the last position of each run of equal confidences

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def risk(self) -> float:
        """The error rate of all patches."""
        return float(self.is_wrong.mean())

    @property
    def expected_wrong(self) -> Floats:
        """For each patch the error rate of its ties, (N,): what their orders give on average."""
        return _shared(self.is_wrong.astype(np.float64), np.ones(len(self)), self.ends)


@dataclass(frozen=True)
class RiskCoverage:
    """Points of the curve, coverage rising; `low` and `high` are Wilson's ends of each risk."""

    coverage: Sequence[float]
    risk: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def rank_by_confidence(predictions: Predictions, threshold: float) -> Ranked:
    """Return the patches by how probable the model takes its own calls to be right.

    That is p for what is called tumour and 1 - p for what is called normal, with the calibrated p;
    in log-odds, which do not run out of digits near 1. At a threshold of 0.5 it is the distance of
    the logit from the threshold; at another it is not, and orders errors better: at 0.187 the best
    CNN on real patches has an area of 0.043 by it and of 0.065 by the distance.
    """
    calls = calls_of(predictions, threshold)
    confidence = np.where(calls, predictions.logit, -predictions.logit)
    order = np.argsort(-confidence, kind="stable")
    is_wrong = calls != (predictions.labels == 1)
    return Ranked(confidence[order], is_wrong[order], tie_ends(confidence[order]))


def compute_risk_coverage(ranked: Ranked, level: float = 0.95) -> RiskCoverage:
    """Return at most MAX_POINTS points, evenly spaced as far as ties allow; the last has all."""
    wanted = np.ceil(len(ranked) * np.arange(1, MAX_POINTS + 1) / MAX_POINTS).astype(int) - 1
    ends = np.unique(ranked.ends[np.searchsorted(ranked.ends, wanted)])
    errors = np.cumsum(ranked.is_wrong)[ends]
    intervals = [
        wilson_interval(int(e), int(k) + 1, level) for e, k in zip(errors, ends, strict=True)
    ]
    return RiskCoverage(
        coverage=((ends + 1) / len(ranked)).tolist(),
        risk=(errors / (ends + 1)).tolist(),
        low=[each.low for each in intervals],
        high=[each.high for each in intervals],
    )


def compute_aurc(expected_wrong: Floats) -> float:
    """Return the mean, over k = 1..N, of the error rate among the k surest patches.

    `expected_wrong` (N,) is 1 for an error, by falling confidence, and shared among ties.
    """
    return float(np.mean(np.cumsum(expected_wrong) / np.arange(1, len(expected_wrong) + 1)))


def aurc_of_an_oracle(num_patches: int, num_errors: int) -> float:
    """Return the area where all errors rank last: the least that as many errors can have."""
    kept = np.arange(1, num_patches + 1)
    return float(np.mean(np.maximum(0, kept - (num_patches - num_errors)) / kept))


def aurc_interval(ranked: Ranked, num_resamples: int, level: float, seed: int) -> Interval:
    """Return the interval of the area, from its bootstrap standard error on the logit scale.

    Patches are taken as drawn one by one; those of one slide resemble each other, which makes the
    truth wider. With no error at all, or nothing else, there is no spread to resample: it is then
    Wilson's interval of the error rate, which the area of a confidence that orders no worse than
    chance stays below.
    """
    value = compute_aurc(ranked.expected_wrong)
    num_errors = int(ranked.is_wrong.sum())
    if num_errors in (0, len(ranked)):
        return wilson_interval(num_errors, len(ranked), level)
    wrong = ranked.is_wrong.astype(np.float64)

    def areas(weights: Floats) -> Floats:
        return np.array([_resampled_aurc(wrong, row, ranked.ends) for row in weights])

    resampled = np.concatenate(map_resamples(areas, seed, num_resamples, len(ranked)))
    error = float(resampled.std(ddof=1)) if len(resampled) > 1 else math.nan
    return logit_interval(value, error, level)


def _resampled_aurc(wrong: Floats, copies: Floats, ends: Ints) -> float:
    """Return the area of a resample that holds each patch `copies` times (N,)."""
    shared = wrong if len(ends) == len(wrong) else _shared(wrong, copies, ends)
    return compute_aurc(np.repeat(shared, copies.astype(np.int64)))


def _shared(wrong: Floats, copies: Floats, ends: Ints) -> Floats:
    """Return for each patch the error rate of its ties, (N,), each counted `copies` times."""
    starts = np.append(0, ends[:-1] + 1)
    errors, counts = (np.add.reduceat(each, starts) for each in (wrong * copies, copies))
    return np.repeat(errors / np.maximum(counts, 1), np.diff(np.append(-1, ends)))
