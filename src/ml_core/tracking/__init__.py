"""What a run logs: local files while it trains, MLflow fed from them by another process.

`mlflow_sync`, `mlflow_study` and `mlflow_registry` are not named here: they import MLflow, which
takes seconds.
"""

from __future__ import annotations

from ml_core.tracking.sender import SendHandle, finish_sending, start_sending, sync_champion
from ml_core.tracking.sync_process import SyncHandle, SyncOutcome, finish_sync, start_sync
from ml_core.tracking.tracker import ExperimentTracker

__all__ = [
    "ExperimentTracker",
    "SendHandle",
    "SyncHandle",
    "SyncOutcome",
    "finish_sending",
    "finish_sync",
    "start_sending",
    "start_sync",
    "sync_champion",
]
