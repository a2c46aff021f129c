"""The most extreme patches of a statistic, by a distance that the extreme ones do not move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Standard deviations per median (mean) absolute deviation of normal values: Iglewicz and Hoaglin,
# How to Detect and Handle Outliers, 1993.
_SD_PER_MEDIAN_DEVIATION = 1.4826
_SD_PER_MEAN_DEVIATION = 1.2533


@dataclass(frozen=True)
class Outlier:
    """One patch: its position in the table and its robust z-score."""

    position: int
    z: float


def find_outliers(values: npt.NDArray[Any], num: int) -> list[Outlier]:
    """Return the `num` patches farthest from the median, the farthest first.

    Distances are in robust standard deviations. Values that are not finite are passed over;
    where all are alike nothing is an outlier.
    """
    z = robust_z(values)
    distance = np.where(np.isfinite(z), np.abs(z), -1.0)
    num = min(num, int((distance > 0).sum()))
    if num == 0:
        return []
    chosen = np.argpartition(-distance, num - 1)[:num]
    # the order of argpartition is nobody's promise; ties go by position
    chosen = chosen[np.lexsort((chosen, -distance[chosen]))]
    return [Outlier(int(position), float(z[position])) for position in chosen]


def robust_z(values: npt.NDArray[Any]) -> Floats:
    """Return (values - median) / robust standard deviation; NaN where not finite or all alike.

    The deviation is the median absolute one, or the mean absolute one where more than half of
    the values are the same.
    """
    floats = np.asarray(values, dtype=np.float64)
    finite = floats[np.isfinite(floats)]
    undefined = np.full(floats.shape, np.nan)
    if len(finite) == 0:
        return undefined
    median = np.median(finite)
    deviations = np.abs(finite - median)
    scale = float(np.median(deviations)) * _SD_PER_MEDIAN_DEVIATION
    if scale == 0:
        scale = float(deviations.mean()) * _SD_PER_MEAN_DEVIATION
    if scale == 0:
        return undefined
    return np.where(np.isfinite(floats), (floats - median) / scale, np.nan)
