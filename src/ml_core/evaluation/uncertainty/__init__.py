"""When to trust a model: risk against coverage, when to abstain, and how far seeds agree."""

from ml_core.evaluation.uncertainty.measure import Uncertainty, measure_uncertainty

__all__ = ["Uncertainty", "measure_uncertainty"]
