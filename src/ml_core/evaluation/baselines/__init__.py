"""What a model must beat: six answers from nothing, from colour, or from random filters.

`baselines.fit` makes them, and is not imported here: whoever reads a table needs no torch.
"""

from ml_core.evaluation.baselines.scores import score_baselines
from ml_core.evaluation.baselines.table import BASELINES, BaselineTable

__all__ = ["BASELINES", "BaselineTable", "score_baselines"]
