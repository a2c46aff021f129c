"""What a run's best weights say about one split, and how that is scored and said."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from ml_core.config import Config
from ml_core.data.checks import SplitRecord
from ml_core.data.patch_file import Rows
from ml_core.errors import DataError
from ml_core.evaluation.baselines import BaselineTable
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.predictor import predict
from ml_core.log import progress, shown
from ml_core.pipeline.parts.baselines import baseline_table
from ml_core.pipeline.parts.splits import inference_loader, open_split
from ml_core.pipeline.parts.trained_model import TrainedModel
from ml_core.runs import RunDir, RunRecord

logger = logging.getLogger("ml_core.evaluate")

SHOWN = ("roc_auc", "pr_auc", "accuracy", "f1", "f2", "recall", "precision")


def predict_split(
    record: RunRecord,
    config: Config,
    trained: TrainedModel,
    split: str,
    exclude: Mapping[str, Rows],
) -> Predictions:
    """Return the raw predictions of the best weights for every patch of `split` that is used."""
    loader = inference_loader(config, open_split(config, split, exclude), trained.device)
    predictions = predict(
        trained.model,
        progress(loader, total=len(loader), description=f"evaluate {split}"),
        trained.device,
        precision=trained.precision,
        split=split,
    )
    return dataclasses.replace(
        predictions,
        run_id=record.run_id,
        weights_sha256=trained.weights_sha256,
        epoch=trained.epoch,
    )


def split_baselines(
    record: RunRecord, config: Config, check: SplitRecord, exclude: Mapping[str, Rows]
) -> BaselineTable | None:
    """Return the baselines for the split of `check`, or None, and said, where train is not here."""
    train = record.data["train"]
    hashes = {
        "train": (train["x_sha256"], train["y_sha256"]),
        check.split: (check.x_sha256, check.y_sha256),
    }
    try:
        return baseline_table(config, check.split, exclude, hashes)
    except DataError as error:
        logger.warning("the scores stand without the baselines that are fitted on train. %s", error)
        return None


def log_scores(run: RunDir, scores: Mapping[str, Any], headline: str) -> None:
    """Say the metrics that most readers look for first, with their intervals."""
    logger.info("%s on %s, %s, with 95 %% intervals:", shown(run.path), scores["split"], headline)
    for name in SHOWN:
        score = scores["metrics"][name]
        if score["value"] is not None and score["low"] is not None:
            logger.info(
                "  %-9s  %.4f  (%.4f to %.4f)", name, score["value"], score["low"], score["high"]
            )
