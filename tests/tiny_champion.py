"""A run on a tiny data set that has a test split, and a champion.json that chose it."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam

from ml_core.config import Config
from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.threshold import ChosenThreshold, ThresholdRule, choose_threshold
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.train import train
from ml_core.runs import RunDir, RunRecord
from ml_core.selection.champion import Champion

NUM_TEST, THRESHOLD, TEMPERATURE = 40, 0.3, 1.7


def train_tiny(folder: Path) -> RunDir:
    """Train in `folder`/runs on `folder`/data, whose test split has 40 patches, and evaluate."""
    data_dir = write_tiny_pcam(folder / "data")
    labels = np.arange(NUM_TEST) % 2
    write_split(data_dir, "test", make_patches(labels, 7), labels.reshape(-1, 1, 1, 1))
    config = Config.load(write_config(folder / "config.yaml", data_dir))
    run = RunDir.open(train(config, command="ml-core train config.yaml")["runs"][0]["run"])
    evaluate(run.path)
    return run


def copy_tiny(run: RunDir, folder: Path) -> RunDir:
    """Return a copy of `run` in `folder`, with its data; nothing of the first is used any more."""
    source = run.path.parents[2]
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
    copied = RunDir.open(folder / run.path.relative_to(source))
    for path in (copied.config_path, copied.record_path):
        path.write_text(path.read_text().replace(str(source), str(folder)))
    return copied


def write_champion(run: RunDir, name: str = "champion.json", **changes) -> Path:
    """Write a champion.json beside `run`, as if it had been chosen; return its path."""
    record = RunRecord.load(run)
    metric = {"value": 0.9, "low": 0.8, "high": 0.95}
    fields = {
        "created_at": "2026-01-02T03:04:05+00:00",
        "command": "ml-core select runs/tiny",
        "rule": {"rule": "best_mean", "metric": "roc_auc"},
        "run": {
            "path": run.name,
            "name": run.name,
            "run_id": record.run_id,
            "weights_sha256": record.best["weights_sha256"],
            "epoch": record.best["epoch"],
            "seed": record.seed,
            "experiment_name": record.experiment_name,
        },
        "evidence": {"metrics": {"roc_auc": metric}, "chosen_for": "the highest ROC-AUC"},
        "runner_up": None,
        "threshold": dataclasses.replace(_choose(run), value=THRESHOLD).to_dict(),
        "calibration": Calibration("temperature", TEMPERATURE).to_dict(),
        "prior_shift": None,
        "baselines": {},
        "data": {
            split: {key: each[key] for key in ("x_sha256", "y_sha256", "num_patches")}
            for split, each in record.data.items()
        },
        "code": {},
    }
    path = run.path.parent / name
    Champion(**{**fields, **changes}).save(path)
    return path


def _choose(run: RunDir) -> ChosenThreshold:
    table = Predictions.load(run.predictions_path("valid"))
    rule = ThresholdRule("recall", at_least=0.95)
    return choose_threshold(table.labels, table.y_prob, rule, num_resamples=100)
