"""What probabilities and calls mean where tumours are rarer, or more common, than in the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats

Estimate = dict[str, float | None]  # value, low, high
Range = tuple[float, float, float]  # value, low, high

_PATCHES = 1000


def adjust_prior(y_prob: npt.ArrayLike, from_prevalence: float, to_prevalence: float) -> Floats:
    """Return the probabilities (N,) at another prevalence, in the same order.

    `from_prevalence` is that of the patches the probabilities are calibrated for. Odds are
    multiplied by the ratio of the prior odds (Saerens, Latinne and Decaestecker, Neural Computation
    14, 2002; Elkan, IJCAI 2001), which holds where tumours look like tumours, and normal tissue
    like normal tissue, in both places. 0 stays 0 and 1 stays 1.

    Raises ValueError for probabilities or prevalences that are none.
    """
    check_prevalence(from_prevalence)
    check_prevalence(to_prevalence)
    probs = np.asarray(y_prob, dtype=np.float64)
    outside = ~((probs >= 0) & (probs <= 1))  # also true for NaN
    if outside.any():
        raise ValueError(
            f"y_prob holds {int(outside.sum())} of {probs.size} values that are NaN or outside "
            "0..1. Needed are probabilities."
        )
    tumour = probs * (to_prevalence / from_prevalence)
    normal = (1 - probs) * ((1 - to_prevalence) / (1 - from_prevalence))
    adjusted: Floats = tumour / (tumour + normal)
    return adjusted


def at_prevalence(
    recall: float | Mapping[str, float | None],
    specificity: float | Mapping[str, float | None],
    prevalence: float,
) -> dict[str, Any]:
    """Return what a recall and a specificity come to where `prevalence` of patches are tumour.

    Each is a number, or a mapping with `value`, `low` and `high` as a chosen threshold expects
    them. Of the result, `ppv` is the share of alarms that are tumours and `npv` that of the rest
    that are normal; of 1,000 patches `alarms_per_1000` are called, `false_alarms_per_1000` are
    called and normal, `missed_per_1000` are tumours and not called. Each is a mapping with `value`,
    `low`, `high`, None where undefined: without an alarm there is no PPV.

    Intervals follow from those given, as of two independent estimates, since tumours tell of recall
    and normal patches of specificity (MOVER; Zou and Donner, Statistics in Medicine 27, 2008), for
    PPV and NPV by their log-odds. Raises ValueError for numbers outside 0..1, and for a prevalence
    of 0 or 1.
    """
    check_prevalence(prevalence)
    found, right = _range(recall, "recall"), _range(specificity, "specificity")
    missed, false = _complement(found), _complement(right)
    normal = 1 - prevalence
    alarms = _add(_times(found, prevalence), _times(false, normal))
    return {
        "prevalence": prevalence,
        "ppv": _predictive_value(found, false, prevalence),
        "npv": _predictive_value(right, missed, normal),
        "alarms_per_1000": _estimate(_times(alarms, _PATCHES)),
        "false_alarms_per_1000": _estimate(_times(false, normal * _PATCHES)),
        "missed_per_1000": _estimate(_times(missed, prevalence * _PATCHES)),
    }


def check_prevalence(prevalence: float) -> None:
    """Raise ValueError for a prevalence that is not between 0 and 1, or is one of them."""
    if not 0 < prevalence < 1:
        raise ValueError(
            f"a prevalence of {prevalence} is not possible: where all patches are of one class "
            "there is nothing to tell apart. Allowed are numbers between 0 and 1, such as 0.02."
        )


def _range(given: float | Mapping[str, float | None], name: str) -> Range:
    ends = given if isinstance(given, Mapping) else dict.fromkeys(("value", "low", "high"), given)
    value, low, high = (_nan_if_none(ends[key]) for key in ("value", "low", "high"))
    if any(not 0 <= end <= 1 for end in (value, low, high) if not math.isnan(end)):
        raise ValueError(
            f"{name} is {value}, from {low} to {high}; needed are numbers from 0 to 1."
        )
    return value, min(low, value), max(high, value)  # rounding may have parted equal ends


def _complement(a: Range) -> Range:
    return 1 - a[0], 1 - a[2], 1 - a[1]


def _times(a: Range, factor: float) -> Range:
    return a[0] * factor, a[1] * factor, a[2] * factor


def _add(a: Range, b: Range) -> Range:
    value = a[0] + b[0]
    low = value - math.hypot(a[0] - a[1], b[0] - b[1])
    high = value + math.hypot(a[2] - a[0], b[2] - b[0])
    return value, low, high


def _predictive_value(hit: Range, miss: Range, share: float) -> Estimate:
    """Return share * hit / (share * hit + (1 - share) * miss), whose log-odds are a sum."""
    log_hit, log_miss = ([_log(end) for end in each] for each in (hit, miss))
    log_fewer = (-log_miss[0], -log_miss[2], -log_miss[1])
    prior = math.log(share / (1 - share))
    log_odds = _add((log_hit[0], log_hit[1], log_hit[2]), log_fewer)
    if not all(map(math.isfinite, (*log_hit, *log_miss))):
        # A share of 0 has no logarithm: both intervals' worse and better ends bound the result.
        log_odds = (log_odds[0], log_hit[1] + log_fewer[1], log_hit[2] + log_fewer[2])
    value, low, high = (_from_log_odds(prior + each) for each in log_odds)
    return _estimate((value, low, high))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan if math.isnan(value) else -math.inf


def _from_log_odds(log_odds: float) -> float:
    """Return the probability; NaN for that of 0 / 0."""
    if log_odds > 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds)) if log_odds == log_odds else math.nan


def _estimate(a: Range) -> Estimate:
    return {
        key: end if math.isfinite(end) else None
        for key, end in zip(("value", "low", "high"), a, strict=True)
    }


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else float(value)
