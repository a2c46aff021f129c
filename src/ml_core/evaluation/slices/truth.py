"""Conditions over values that may be missing: each holds, fails, or cannot be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Truth:
    """Where a condition holds and where it fails, bool (N,); neither where it cannot be told.

    Kleene's three-valued logic, as in SQL: `not` turns the two round, so that what cannot be told
    of a patch stays so, and "a or b" holds where one of the two does.
    """

    holds: Bools
    fails: Bools

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.holds & other.holds, self.fails | other.fails)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.holds | other.holds, self.fails & other.fails)

    def __invert__(self) -> Truth:
        return Truth(self.fails, self.holds)
