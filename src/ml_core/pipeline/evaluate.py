"""Score a run's best checkpoint on a split, or open the test split for the champion.

Reads the run's config, its best checkpoint and the split's files; writes
predictions/SPLIT.parquet, metrics.json (metrics-SPLIT.json of another split than valid) and
figures/ into the run. Opening the test split does more: see `ml_core.pipeline.sealed.sealed_test`.

    ml-core evaluate runs/pcam_cnn/20260102-030405-seed42
    ml-core evaluate runs/pcam_cnn/champion.json --split test
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_core.errors import RunError, did_you_mean
from ml_core.evaluation.figures import prediction_figures, training_figures
from ml_core.evaluation.plots import save_figures
from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.findings import Finding
from ml_core.pipeline.parts.split_scores import log_scores, predict_split, split_baselines
from ml_core.pipeline.parts.splits import check_data, refuse_other_data, run_exclusions
from ml_core.pipeline.parts.trained_model import load_run_config, load_trained
from ml_core.pipeline.sealed.sealed_test import evaluate_test
from ml_core.runs import RunDir, RunRecord, read_jsonl, write_json
from ml_core.selection.champion import Champion

logger = logging.getLogger("ml_core.evaluate")

SPLITS = ("train", "valid", "test")
SAME = 1e-6  # scores from the same weights and patches differ by less, on any machine


def evaluate(
    path: Path,
    split: str = "valid",
    overrides: Iterable[str] = (),
    *,
    unsealed: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Return the scores as they were written, with "run".

    `path` is a run's directory or a champion.json. Train and valid are scored at the run's own
    threshold; test only for a champion.json and as it says, or `unsealed`, and each opening is
    counted (`command` is what its ledger calls it). Raises RunError, DataError, CheckpointError.

    The scores of the best epoch were logged in training; for valid they are computed again from
    the saved weights, and a difference becomes a finding of the run.
    """
    _check_split(split)
    if split == "test":
        return evaluate_test(path, overrides, unsealed=unsealed, command=command)
    if unsealed:
        raise RunError(f"--unsealed is about the test split; {split} is open. Leave it away.")
    run = Champion.load(path).check(path) if path.is_file() else RunDir.open(path)
    record, config = RunRecord.load(run), load_run_config(run, overrides)
    trained = load_trained(run, config)
    exclude = run_exclusions(run, record)
    (check,) = check_data(config, (split,), exclude)
    refuse_other_data(record, [check])
    predictions = predict_split(record, config, trained, split, exclude)
    predictions.save(run.predictions_path(split))
    scores = evaluate_predictions(
        predictions,
        config.evaluation.threshold,
        config.evaluation.num_resamples,
        config.seed,
        baselines=split_baselines(record, config, check, exclude),
    )
    write_json(run.scores_path(split), scores)
    figures = prediction_figures(predictions, scores)
    if split == "valid":
        epochs, steps = (list(read_jsonl(at)) for at in (run.metrics_log_path, run.steps_log_path))
        save_figures(run, {**figures, **training_figures(epochs, steps, trained.epoch)})
        _compare_with_log(run, record, predictions, trained.epoch)
    else:
        save_figures(run, {f"{split}-{name}": figure for name, figure in figures.items()})
    log_scores(run, scores, f"weights of epoch {trained.epoch}")
    return {"run": str(run.path), **scores}


def _check_split(split: str) -> None:
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
