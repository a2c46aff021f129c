"""Training: the loop, its optimizers and schedules, and the watch that says when it goes wrong."""

from ml_core.solver.trainer import Trainer

__all__ = ["Trainer"]
