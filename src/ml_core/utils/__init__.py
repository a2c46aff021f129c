"""The four names that the course's code imports; they live elsewhere."""

from ml_core.config import load_config
from ml_core.log import setup_logger
from ml_core.reproducibility import seed_everything
from ml_core.tracking import ExperimentTracker

__all__ = ["ExperimentTracker", "load_config", "seed_everything", "setup_logger"]
