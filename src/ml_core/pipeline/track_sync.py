"""Send to MLflow what it has not received of some runs, once.

Reads the logs, the record and the artifacts of each run; writes sync.json into it.

    ml-core track sync runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.runs import RunDir
from ml_core.tracking.mlflow_sync import sync_run

logger = logging.getLogger("ml_core.track")


def track_sync(paths: Sequence[Path], uri: str | None = None) -> dict[str, Any]:
    """Return per run what was sent; raises TrackingError when the server does not answer."""
    results = {}
    for path in paths:
        run = RunDir.open(path)
        target = uri or Config.load(run.config_path).tracking.mlflow_uri
        if target is None:
            raise ConfigError(
                f"{run.path} names no MLflow server. Say which: ml-core track sync RUN --uri URI."
            )
        result = sync_run(run, target)
        logger.info(
            "%s: %d values sent, %d were there already, %d artifacts",
            run.path, result.sent, result.already_there, result.artifacts_sent,
        )  # fmt: skip
        results[str(run.path)] = dataclasses.asdict(result)
    return results
