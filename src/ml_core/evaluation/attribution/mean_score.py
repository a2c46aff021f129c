"""The mean of independent values, with the interval that Student gave it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.predictions import null_if_nan


def mean_score(
    values: npt.ArrayLike, bounds: tuple[float, float], level: float = 0.95
) -> dict[str, float | None]:
    """Return {"value", "low", "high"} of the mean of `values` (N,), those that are NaN left out.

    Student's t interval (Biometrika 6, 1908) of values drawn one by one, cut off at `bounds`, which
    no value can leave: (0, 1) of a share, (-1, 1) of a difference of shares. None where there is no
    value, and for the ends of a single one.
    """
    from scipy.stats import t

    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return {"value": None, "low": None, "high": None}
    mean, reach = float(known.mean()), math.nan
    if len(known) > 1:
        error = float(known.std(ddof=1)) / math.sqrt(len(known))
        reach = float(t.ppf((1 + level) / 2, len(known) - 1)) * error
    value, low, high = (float(end) for end in np.clip([mean, mean - reach, mean + reach], *bounds))
    return {"value": value, "low": null_if_nan(low), "high": null_if_nan(high)}
