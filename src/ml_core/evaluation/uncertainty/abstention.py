"""Between which probabilities to abstain, so that the calls that are made keep an error rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ml_core.evaluation.predictions import Predictions, sigmoid
from ml_core.evaluation.uncertainty.risk_coverage import Ranked
from ml_core.metrics import tie_ends
from ml_core.metrics.arrays import Floats, Ints

# Several, since a wrong label among the very surest must not end the search; each has a part of the
# allowed chance. On 500 and 1,500 real predictions three keep the most patches of 1, 2, 3, 5 and 8.
_NUM_STARTS = 3
_NUM_STEPS = 100  # coverages that are tried: every hundredth
_SUREST = 34.0  # log-odds of 1 - 1.7e-15


@dataclass(frozen=True)
class Abstention:
    """Call tumour from `above` on and normal up to `below`; abstain between the two."""

    below: float
    above: float
    num_kept: int  # of the patches it was found on
    num_wrong: int  # of those kept


class Chosen(NamedTuple):
    """A range to abstain in that other patches gave, and the error rate that it was chosen for."""

    below: float
    above: float
    target_risk: float


def see_again(predictions: Predictions, threshold: float, chosen: Chosen) -> Abstention | None:
    """Return what a range that was chosen elsewhere gives here; None where it keeps no call."""
    probs = predictions.y_prob
    kept = (probs <= chosen.below) | (probs >= chosen.above)
    is_wrong = (probs >= threshold) != (predictions.labels == 1)
    if not kept.any():
        return None
    return Abstention(chosen.below, chosen.above, int(kept.sum()), int((kept & is_wrong).sum()))


def find_abstention(
    ranked: Ranked, threshold: float, target_risk: float, level: float = 0.95
) -> Abstention | None:
    """Return the abstention that keeps the most calls at an error rate of at most `target_risk`.

    It holds for new patches with probability `level` over the draw of these: a number of surest
    patches is accepted when a binomial test rejects an error rate above the target. From each of
    three numbers on, larger ones are tested in turn up to the first that fails, each at a third of
    1 - level: fixed-sequence testing, which needs no further correction (Angelopoulos et al., Learn
    then Test, 2021, section 3; the aim and the setting are those of Geifman and El-Yaniv, Selective
    classification for deep neural networks, NeurIPS 2017). Against their bisection, which spreads
    the chance over log2(N) tests, it keeps 36 instead of 20 % of 500 real patches at a target of
    5 %, and 55 instead of 53 % of 1,500; the target was exceeded in at most 1.8 % of 600 draws.

    None where not even the fewest patches that could prove it do. Raises ValueError for a target
    that is not between 0 and 1.
    """
    if not 0 < target_risk < 1:
        raise ValueError(f"target_risk is {target_risk}; allowed are rates between 0 and 1.")
    # beyond, a probability cannot be told from 1, so no published one could part the patches
    confidence = np.minimum(ranked.confidence, _SUREST)
    sizes = _sizes(tie_ends(confidence), least=fewest_to_prove(target_risk, level))
    errors = np.cumsum(ranked.is_wrong, dtype=np.int64)
    allowed = (1 - level) / _NUM_STARTS
    num_kept = _largest_accepted(sizes, errors[sizes - 1], target_risk, allowed)
    if num_kept == 0:
        return None
    cut = -np.inf  # all are kept, and whoever is less sure than any of them
    if num_kept < len(ranked):
        cut = confidence[num_kept - 1 : num_kept + 1].mean()  # half way: rounding moves no patch
    unsure, sure = sigmoid(np.array([-cut, cut]))
    return Abstention(
        # every call on one side may be sure enough: then nothing is abstained from on that side
        below=float(min(unsure, np.nextafter(threshold, 0))),
        above=float(max(sure, threshold)),
        num_kept=num_kept,
        num_wrong=int(errors[num_kept - 1]),
    )


def fewest_to_prove(target_risk: float, level: float) -> int:
    """Return how many patches without one error it takes to prove `target_risk`."""
    return math.ceil(math.log((1 - level) / _NUM_STARTS) / math.log1p(-target_risk))


def _sizes(ends: Ints, least: int) -> Ints:
    """Return the numbers of surest patches to be tested, rising; ties are kept together."""
    num_patches = int(ends[-1]) + 1
    wanted = np.ceil(num_patches * np.arange(1, _NUM_STEPS + 1) / _NUM_STEPS).astype(np.int64)
    sizes = np.unique(ends[np.searchsorted(ends, wanted - 1)] + 1)
    return np.asarray(sizes[sizes >= least], dtype=np.int64)


def _largest_accepted(sizes: Ints, errors: Ints, target_risk: float, allowed: float) -> int:
    from scipy.stats import binom

    p_values: Floats = binom.cdf(errors, sizes, target_risk)
    largest = 0
    for start in np.unique(np.linspace(0, len(sizes), _NUM_STARTS, endpoint=False).astype(int)):
        failed = np.flatnonzero(p_values[start:] > allowed)
        stop = start + (failed[0] if len(failed) else len(sizes) - start)
        if stop > start:
            largest = max(largest, int(sizes[stop - 1]))
    return largest
