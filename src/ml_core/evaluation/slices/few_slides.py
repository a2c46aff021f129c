"""How sure one can be of what a few unequal slides say."""

from __future__ import annotations

import numpy as np

from ml_core.metrics.arrays import Floats

# Below, the spread from slide to slide is itself a guess.
MIN_SLIDES = 5


def effective_slides(shares: Floats) -> float:
    """Return how many equal slides vary as much as slides that bring these `shares` (G,) or (K, G).

    The variance of a mean over slides is a sum with one term per slide, in proportion to its
    squared share where the patches of a slide all agree; Satterthwaite's degrees of freedom of such
    a sum are these less one (Carter, Schnepel and Steigerwald, Review of Economics and Statistics
    99, 2017). Several rows are independent means that are added.
    """
    variances = (np.atleast_2d(shares) ** 2).sum(axis=0)
    return float(variances.sum() ** 2 / (variances**2).sum())


def t_quantile(level: float, num_slides: float) -> float:
    """Return how many standard errors an interval of `level` reaches, with so many slides."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, _freedom(num_slides)))


def t_p_value(statistic: float, num_slides: float) -> float:
    """Return the two-sided p-value of an estimate over its standard error."""
    from scipy.stats import t

    return float(2 * t.sf(abs(statistic), _freedom(num_slides)))


def _freedom(num_slides: float) -> float:
    return max(1.0, num_slides - 1)
