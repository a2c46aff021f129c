"""The errors of a model, most confident first, and whether the model or the label is in doubt."""

from ml_core.evaluation.errors.rank import rank_errors
from ml_core.evaluation.errors.table import ErrorTable

__all__ = ["ErrorTable", "rank_errors"]
