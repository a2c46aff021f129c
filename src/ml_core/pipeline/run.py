"""The main job: check the data, train every seed, evaluate and examine each, write the report.

Reads a config and the data it names; writes a run directory per seed and one report.

    ml-core run experiments/configs/pcam_cnn.yaml
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.distributed import ranks_from_environment
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.explain import explain
from ml_core.pipeline.report import report
from ml_core.pipeline.slice import slice_predictions
from ml_core.pipeline.train import resume as resume_training
from ml_core.pipeline.train import train
from ml_core.runs import RunDir
from ml_core.tracking import finish_sync, start_sync

logger = logging.getLogger("ml_core.run")


def run(config: Config, *, command: str) -> dict[str, Any]:
    """Return {"status", "runs", "report"}; each run has its "metrics" with intervals."""
    return _score(train(config, command=command))


def resume(
    path: Path, overrides: Sequence[str] = (), *, command: str, elsewhere: bool = False
) -> dict[str, Any]:
    """Go on with the run at `path`, `elsewhere` as in `train`, then evaluate and report it."""
    result = resume_training(path, overrides, command=command, elsewhere=elsewhere)
    return _score({"status": result["status"], "runs": [result]}, overrides)


def _score(result: dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    if result["status"] == "interrupted" or not ranks_from_environment().is_first:
        return result
    for trained in result["runs"]:
        trained["metrics"] = evaluate(Path(trained["run"]), overrides=overrides)["metrics"]
    paths = [Path(trained["run"]) for trained in result["runs"]]
    for path in paths:  # after all are evaluated: the seeds are compared with each other
        explain(path, overrides=overrides)
        slice_predictions(path, overrides=overrides)
        result["report"] = report([path], overrides=overrides)["report"]
    if len(paths) > 1:
        result["report"] = report(paths, overrides=overrides)["report"]
    for path in paths:
        _send_results(RunDir.open(path))
    return result


def _send_results(run: RunDir) -> None:
    """Send to MLflow, if the run names one, what came after training: scores, figures, report."""
    uri = Config.load(run.config_path).tracking.mlflow_uri
    if uri is not None:
        logger.info("%s", finish_sync(start_sync(run, uri)).message)
