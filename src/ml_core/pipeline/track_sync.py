"""Send to MLflow what it has not received of some runs, studies and champions, once.

Reads the logs, the record and the artifacts of each run, the trials of each study, and of each
champion.json the weights it names; writes sync.json into every run and study.

    ml-core track sync runs/pcam_cnn/20260102-030405-seed42
    ml-core track sync runs/pcam_cnn_search/study-20260102-030405
    ml-core track sync runs/pcam_cnn_search/study-20260102-030405/champion.json
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_core.errors import MLCoreError
from ml_core.pipeline.syncing.sending import send


def track_sync(paths: Sequence[Path], uri: str | None = None) -> dict[str, Any]:
    """Return per path what was sent; raises TrackingError when the server does not answer."""
    return {str(path): dataclasses.asdict(send(path, uri)) for path in paths}


if __name__ == "__main__":  # what ml_core.tracking.start_sending starts
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        track_sync([Path(each) for each in sys.argv[1:]], os.environ.get("MLFLOW_TRACKING_URI"))
    except MLCoreError as error:
        sys.exit(str(error))
