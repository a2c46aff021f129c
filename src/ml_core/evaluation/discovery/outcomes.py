"""Which patches the model has wrong, and how many that should be given what is known already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.discovery.discovered import Target
from ml_core.metrics.arrays import Floats, Ints, ratio

Masks = npt.NDArray[np.bool_]

# Which classes (0 normal, 1 tumour) a target counts the errors of. A model that calls everything
# normal misses all tumours and raises no false alarm: over both classes little would show.
CLASSES: dict[Target, tuple[int, ...]] = {
    "errors": (0, 1),
    "missed tumours": (1,),
    "false alarms": (0,),
}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Label and error of each patch, and what explains the errors; arrays are (N,).

    `strata` numbers the groups of patches that are compared among themselves: of the same class,
    and in the same of the slices found so far. `expected` is the error rate of its stratum, on the
    patches that suggest.
    """

    labels: Ints
    is_wrong: Masks
    suggests: Masks
    strata: Ints
    expected: Floats

    @classmethod
    def of(cls, labels: Ints, is_wrong: Masks, suggests: Masks) -> Outcomes:
        """Return outcomes of which nothing is known but the class."""
        return cls(labels, is_wrong, suggests, labels, _rates(labels, is_wrong, suggests))

    def explained_by(self, mask: Masks) -> Outcomes:
        """Return them with the slice `mask` taken into account.

        What is found next is then bad even for a patch of this slice, or even for one outside: not
        the same slice in other words.
        """
        _, strata = np.unique(2 * self.strata + mask, return_inverse=True)
        expected = _rates(strata, self.is_wrong, self.suggests)
        return Outcomes(self.labels, self.is_wrong, self.suggests, strata, expected)

    def concerned(self, target: Target) -> Masks:
        """Return which patches the target can go wrong on, bool (N,)."""
        return np.isin(self.labels, CLASSES[target])


def log_likelihood_ratio(
    n: Ints, errors: Ints, expected: Floats, num: int, num_errors: int
) -> Floats:
    """Return how much likelier the errors are if slices have an error rate of their own, (T,).

    The natural logarithm: Kulldorff's scan statistic (Communications in Statistics 26, 1997, the
    Bernoulli model) for `errors` of `n` patches where `expected` were to come, among `num_errors`
    of `num` in all. Unlike a squared z it does not run away where a fraction of an error is
    expected. -inf where there are no more errors than expected.
    """
    log_ratio: Floats = _surprise(errors, expected) + _surprise(n - errors, n - expected)
    log_ratio += _surprise(num_errors - errors, num_errors - expected)
    log_ratio += _surprise(num - n - num_errors + errors, num - n - num_errors + expected)
    gained: Floats = np.where(errors > expected, log_ratio, -np.inf)
    return gained


def _surprise(seen: Ints, expected: Floats) -> Floats:
    """Return seen * log(seen / expected), 0 where nothing was seen."""
    shares: Floats = np.ones(expected.shape)
    np.divide(seen, expected, out=shares, where=(seen > 0) & (expected > 0))
    surprise: Floats = seen.astype(np.float64) * np.log(shares)
    return surprise


def _rates(strata: Ints, is_wrong: Masks, suggests: Masks) -> Floats:
    num_strata = int(strata.max()) + 1
    num = np.bincount(strata[suggests], minlength=num_strata).astype(np.float64)
    errors = np.bincount(strata[suggests & is_wrong], minlength=num_strata).astype(np.float64)
    rates: Floats = np.nan_to_num(ratio(errors, num))[strata]
    return rates
