"""A number with its interval, as the JSON files have it."""

from __future__ import annotations

from ml_core.evaluation.predictions import null_if_nan
from ml_core.metrics import Interval, wilson_interval

JSONScore = dict[str, float | None]


def score_dict(value: float, interval: Interval) -> JSONScore:
    """Return {"value", "low", "high"}, None where undefined."""
    return {
        "value": null_if_nan(value),
        "low": null_if_nan(interval.low),
        "high": null_if_nan(interval.high),
    }


def rate_dict(successes: int, trials: int, level: float) -> JSONScore:
    """Return the score of a proportion with Wilson's interval; all None without trials."""
    value = successes / trials if trials else float("nan")
    return score_dict(value, wilson_interval(successes, trials, level))
