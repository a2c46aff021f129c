"""What a run logs: local files while it trains, MLflow fed from them by another process.

`ml_core.tracking.mlflow_sync.sync_run` is not named here: it imports MLflow, which takes seconds.
"""

from __future__ import annotations

from ml_core.tracking.sync_process import SyncHandle, SyncOutcome, finish_sync, start_sync
from ml_core.tracking.tracker import ExperimentTracker

__all__ = ["ExperimentTracker", "SyncHandle", "SyncOutcome", "finish_sync", "start_sync"]
