"""An interval, and the two ways of making one that several metrics share."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """The two ends of an interval; both NaN where the metric is undefined."""

    low: float
    high: float


UNDEFINED = Interval(float("nan"), float("nan"))


def normal_quantile(level: float) -> float:
    """Return how many standard errors an interval of `level` reaches to each side: 1.96 for 0.95.

    Raises ValueError for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed are levels between 0 and 1, such as 0.95.")
    return NormalDist().inv_cdf((1 + level) / 2)


def logit_interval(value: float, standard_error: float, level: float) -> Interval:
    """Return the interval that is symmetric about `value` on the logit scale, so within 0..1.

    `value` lies between 0 and 1, not on them; the delta method carries its standard error over.
    """
    centre = math.log(value / (1 - value))
    reach = normal_quantile(level) * standard_error / (value * (1 - value))
    return Interval(_sigmoid(centre - reach), _sigmoid(centre + reach))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > 0 else math.exp(logit) / (1 + math.exp(logit))
