"""Arithmetic whose results do not depend on the order in which it is done.

Products and convolutions round their factors so that every sum of products is exact (`rounding`);
all other sums are added in a fixed order (`summation`). `ExactMode` puts that in place of torch's
functions, and refuses what it has no exact form of.
"""

from ml_core.numerics.exact.cross_entropy import exact_cross_entropy
from ml_core.numerics.exact.known_answer import check_exact
from ml_core.numerics.exact.mode import ExactMode

__all__ = ["ExactMode", "check_exact", "exact_cross_entropy"]
