"""The main job: check the data, train every seed, evaluate and examine each, write the report.

Reads a config and the data it names; writes a run directory per seed and one report.

    ml-core run experiments/configs/pcam_cnn.yaml
    ml-core run --resume runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.distributed import ranks_from_environment
from ml_core.log import shown
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.explain import explain
from ml_core.pipeline.parts.finished_run import is_over, result_of
from ml_core.pipeline.report import report
from ml_core.pipeline.slice import slice_predictions
from ml_core.pipeline.train import resume as resume_training
from ml_core.pipeline.train import train
from ml_core.runs import RunDir, RunRecord
from ml_core.solver.interrupt import StoppedError, stopped_at_once
from ml_core.tracking import finish_sync, start_sync

logger = logging.getLogger("ml_core.run")


def run(config: Config, *, command: str) -> dict[str, Any]:
    """Return {"status", "runs", "report"}; each run has its "metrics" with intervals."""
    return _score_or_stop(train(config, command=command))


def resume(
    path: Path, overrides: Sequence[str] = (), *, command: str, elsewhere: bool = False
) -> dict[str, Any]:
    """Go on with the run at `path`, `elsewhere` as in `train`, then evaluate and report it.

    One that is trained to its end, whoever did it, is evaluated and reported.
    """
    run = RunDir.open(path)
    record = RunRecord.load(run)
    if is_over(record):
        result = result_of(run, record)
        # No handlers: a job whose whole time is too short for this would come back for ever.
        return _score({"status": result["status"], "runs": [result]}, overrides)
    result = resume_training(path, overrides, command=command, elsewhere=elsewhere)
    return _score_or_stop({"status": result["status"], "runs": [result]}, overrides)


def _score_or_stop(result: dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Score what was just trained; asked to stop by a scheduler, leave that to the next start."""
    if result["status"] != "interrupted" and result["runs"][-1]["told_to_stop"]:
        return _left(result, "told to stop: trained, but not evaluated")
    try:
        with stopped_at_once():
            return _score(result, overrides)
    except StoppedError as signal_name:
        return _left(result, f"{signal_name}: trained, but not evaluated to the end")


def _left(result: dict[str, Any], why: str) -> dict[str, Any]:
    """Say how to go on with what is trained, and return it as interrupted."""
    how = "; ".join(
        f"ml-core run --resume {shown(Path(trained['run']))}" for trained in result["runs"]
    )
    logger.info("%s; go on with: %s", why, how)
    return {**result, "status": "interrupted"}


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
