"""What the patches of a slice look like beside the rest, in words."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.discovery.discovered import Look
from ml_core.evaluation.slices.facts import FACTS

# Cohen's "medium" difference (Statistical Power Analysis, 1988, section 2.2): visible to the eye.
MIN_Z = 0.5
MAX_LOOKS = 4


def describe_looks(inside: npt.NDArray[np.bool_], facts: pd.DataFrame) -> tuple[Look, ...]:
    """Return in which facts the patches `inside` (N,) differ most from the rest, the most first.

    Only facts that may suggest, so that a slice is not described by its labels. A name is a look
    where at least half of the slice bears it, and less than half of the rest; its z is that of the
    share.
    """
    looks = []
    for name, fact in FACTS.items():
        if name not in facts or not fact.may_suggest:
            continue
        if fact.kind == "number":
            values = facts[name].to_numpy(np.float64)
            z = _standardised(values, inside)
            looks.append(Look(name, z, fact.more if z > 0 else fact.less))
        elif fact.kind == "category":
            looks += _named(name, facts[name], inside)
    seen = [look for look in looks if abs(look.z) >= MIN_Z]
    return tuple(sorted(seen, key=lambda look: -abs(look.z))[:MAX_LOOKS])


def _named(name: str, values: pd.Series, inside: npt.NDArray[np.bool_]) -> list[Look]:
    counts = values[inside].value_counts()
    if len(counts) == 0 or counts.iloc[0] < inside.sum() / 2:
        return []
    bears = (values == counts.index[0]).to_numpy()
    if bears[~inside].mean() >= 0.5:
        return []
    return [
        Look(name, _standardised(bears.astype(np.float64), inside), f"{name} {counts.index[0]}")
    ]


def _standardised(values: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> float:
    """Return the difference of the means in standard deviations; 0 where there is none to tell."""
    known = np.isfinite(values)
    if not (inside & known).any() or not (~inside & known).any():
        return 0.0
    deviation = float(values[known].std())
    difference = float(values[inside & known].mean() - values[~inside & known].mean())
    return difference / deviation if deviation > 0 and math.isfinite(difference) else 0.0
