"""What slices.json, errors.json, uncertainty.json and explain.json have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_core.errors import RunError, cannot_write
from ml_core.evaluation.predictions import Predictions
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.runs import write_json

FORMAT = 1


def head_of(operating: OperatingRun, predictions: Predictions) -> dict[str, Any]:
    """Return how a result file begins: of which predictions it is, and at which operating point."""
    return {
        "format": FORMAT,
        "split": predictions.split,
        "n": len(predictions),
        **operating.describe(),
        "weights_sha256": predictions.weights_sha256,
        "epoch": predictions.epoch,
        "seed": operating.config.seed,
        "predictions_file": operating.run.predictions_path(predictions.split)
        .relative_to(operating.run.path)
        .as_posix(),
    }


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result file whole; raises RunError where that cannot be."""
    try:
        write_json(path, content)
    except OSError as error:
        raise RunError(cannot_write(path, error)) from error
