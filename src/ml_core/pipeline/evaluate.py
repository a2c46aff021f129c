"""Score a run's best checkpoint on a split.

Reads the run's config, its best checkpoint and the split's files; writes
predictions/SPLIT.parquet, metrics.json and figures/ into the run.

    ml-core evaluate runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_core.errors import RunError, did_you_mean
from ml_core.evaluation.figures import prediction_figures, training_figures
from ml_core.evaluation.plots import save_figures
from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.evaluation.predictor import predict
from ml_core.findings import Finding
from ml_core.log import progress
from ml_core.pipeline.splits import (
    check_data,
    inference_loader,
    open_split,
    refuse_other_data,
    run_exclusions,
)
from ml_core.pipeline.trained_model import load_run_config, load_trained
from ml_core.runs import RunDir, RunRecord, read_jsonl, write_json

logger = logging.getLogger("ml_core.evaluate")

SPLITS = ("train", "valid")
SHOWN = ("roc_auc", "pr_auc", "accuracy", "f1", "f2", "recall", "precision")
SAME = 1e-6  # scores from the same weights and patches differ by less, on any machine


def evaluate(path: Path, split: str = "valid", overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the content of metrics.json, with "run"; raises RunError, DataError, CheckpointError.

    The scores of the best epoch were logged in training; here they are computed again from the
    saved weights, and a difference becomes a finding of the run.
    """
    _check_split(split)
    run = RunDir.open(path)
    record, config = RunRecord.load(run), load_run_config(run, overrides)
    trained = load_trained(run, config)
    exclude = run_exclusions(run, record)
    refuse_other_data(record, check_data(config, (split,), exclude))
    loader = inference_loader(config, open_split(config, split, exclude), trained.device)
    predictions = predict(
        trained.model,
        progress(loader, total=len(loader), description=f"evaluate {split}"),
        trained.device,
        precision=trained.precision,
        split=split,
    )
    predictions = dataclasses.replace(
        predictions,
        run_id=record.run_id,
        weights_sha256=trained.weights_sha256,
        epoch=trained.epoch,
    )
    predictions.save(run.predictions_path(split))
    scores = evaluate_predictions(
        predictions, config.evaluation.threshold, config.evaluation.num_resamples, config.seed
    )
    write_json(run.metrics_path, scores)
    epochs, steps = (list(read_jsonl(log)) for log in (run.metrics_log_path, run.steps_log_path))
    figures = prediction_figures(predictions, scores)
    save_figures(run, {**figures, **training_figures(epochs, steps, trained.epoch)})
    if split == "valid":
        _compare_with_log(run, record, predictions, trained.epoch)
    logger.info(
        "%s on %s, weights of epoch %d, with 95 %% intervals:", run.name, split, trained.epoch
    )
    for name in SHOWN:
        score = scores["metrics"][name]
        if score["value"] is not None:
            logger.info("  %-9s  %.4f  (%.4f to %.4f)", name, *score.values())
    return {"run": str(run.path), **scores}


def _check_split(split: str) -> None:
    if split == "test":
        raise RunError(
            "the test split is sealed: a model chosen by looking at it would have no honest score "
            "left. Score valid; the test split is for the one champion, once it is chosen."
        )
    if split not in SPLITS:
        near = did_you_mean(split, SPLITS)
        raise RunError(f"unknown split '{split}'; evaluate takes: {', '.join(SPLITS)}.{near}")


def _compare_with_log(run: RunDir, record: RunRecord, predictions: Predictions, epoch: int) -> None:
    """Note in the record when the checkpoint does not give the scores that were logged."""
    logged = {line["epoch"]: line for line in read_jsonl(run.metrics_log_path)}.get(epoch, {})
    now = predictions.metrics()
    for name in ("loss", "roc_auc"):
        then = logged.get(f"val_{name}")
        if then is not None and not math.isclose(then, now[name], abs_tol=SAME):
            message = (
                f"the best checkpoint gives {name} {now[name]:.6f} on valid, but {then:.6f} was "
                f"logged after epoch {epoch}. Other hardware or packages, or the weights are not "
                "those of that epoch."
            )
            record.add_finding(Finding("score-differs", "warning", message))
            record.save(run)
            logger.warning("%s", message)
