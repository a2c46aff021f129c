"""A run directory of realistic shape without any training: 10 epochs, 790 steps, 1,500 patches."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np

from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.findings import Finding
from ml_core.runs import RunDir, RunRecord, write_json

NUM_EPOCHS, STEPS_PER_EPOCH, NUM_PATCHES = 10, 79, 1500


def fabricate_predictions(seed: int = 0, separation: float = 2.3, **changes) -> Predictions:
    generator = np.random.default_rng(seed)
    y_true = generator.integers(0, 2, NUM_PATCHES)
    logit = separation * (2 * y_true - 1) / 2 + generator.normal(size=NUM_PATCHES) * 1.05
    logit = logit * 1.6
    fields = {
        "split": "valid",
        "index": np.arange(NUM_PATCHES),
        "y_true": y_true,
        "y_prob": 1 / (1 + np.exp(-logit)),
        "logit": logit,
        "run_id": f"{seed:032x}",
        "weights_sha256": hashlib.sha256(bytes([seed])).hexdigest(),
        "epoch": 8,
    }
    return Predictions(**{**fields, **changes})


def fabricate_split(split: str, num_patches: int, **changes) -> dict:
    record = {
        "split": split,
        "x_path": f"/data/pcam/camelyonpatch_level_2_split_{split}_x.h5",
        "y_path": f"/data/pcam/camelyonpatch_level_2_split_{split}_y.h5",
        "x_sha256": hashlib.sha256(split.encode()).hexdigest(),
        "y_sha256": hashlib.sha256(split.upper().encode()).hexdigest(),
        "num_rows": num_patches,
        "num_patches": num_patches,
        "num_positive": num_patches // 2,
        "num_filtered": 0,
        "max_patches": None,
        "shape": [96, 96, 3],
        "dtype": "uint8",
        "layout": "contiguous",
        "value_range": "0..255",
    }
    return {**record, **changes}


def write_jsonl(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def fabricate_logs(run: RunDir, seed: int) -> None:
    generator = np.random.default_rng(seed + 100)
    steps, epochs = [], []
    for step in range(1, NUM_EPOCHS * STEPS_PER_EPOCH + 1):
        progress = step / (NUM_EPOCHS * STEPS_PER_EPOCH)
        rate = 3e-3 * min(1.0, step / 60) * (1 + math.cos(math.pi * progress)) / 2
        steps.append(
            {
                "step": step,
                "epoch": (step - 1) // STEPS_PER_EPOCH + 1,
                "time": "2026-01-02T03:04:05+00:00",
                "loss": 0.25 + 0.45 * math.exp(-6 * progress) + 0.05 * generator.normal(),
                "learning_rate": rate,
                "grad_norm": math.exp(-0.5 * progress + 0.5 * generator.normal()),
                "patches_per_s": 2100.0,
            }
        )
    for epoch in range(1, NUM_EPOCHS + 1):
        rise = 1 - math.exp(-0.45 * epoch)
        noise = generator.normal(size=6) * 0.008
        epochs.append(
            {
                "epoch": epoch,
                "step": epoch * STEPS_PER_EPOCH,
                "time": "2026-01-02T03:04:05+00:00",
                "train_loss": 0.65 - 0.42 * rise,
                "train_accuracy": 0.6 + 0.3 * rise,
                "val_loss": 0.66 - 0.33 * rise + 0.008 * max(0, epoch - 6) + noise[0],
                "val_accuracy": 0.58 + 0.28 * rise + noise[1],
                "val_precision": 0.6 + 0.27 * rise + noise[2],
                "val_recall": None if epoch == 1 else 0.55 + 0.3 * rise + noise[3],
                "val_f1": 0.57 + 0.28 * rise + noise[3],
                "val_f2": 0.56 + 0.285 * rise + noise[4],
                "val_roc_auc": 0.62 + 0.32 * rise + noise[5] / 2,
                "val_pr_auc": 0.6 + 0.33 * rise + noise[5] / 2,
                "learning_rate": steps[epoch * STEPS_PER_EPOCH - 1]["learning_rate"],
                "train_patches_per_s": 2104.7,
                "seconds": 10.2,
            }
        )
    write_jsonl(run.metrics_log_path, epochs)
    write_jsonl(run.steps_log_path, steps)


def fabricate_run(
    parent: Path, seed: int = 0, separation: float = 2.3, logs: bool = True, **changes
) -> RunDir:
    """Write a completed run; `changes` are fields of its RunRecord."""
    run = RunDir.create(parent, f"20260102-030405-seed{seed}")
    predictions = fabricate_predictions(seed, separation)
    fields = {
        "experiment_name": "pcam_cnn",
        "seed": seed,
        "command": "ml-core run experiments/configs/pcam_cnn.yaml",
        "run_id": predictions.run_id,
        "status": "completed",
        "started_at": "2026-01-02T03:04:05+00:00",
        "ended_at": "2026-01-02T03:06:14+00:00",
        "duration_s": 129.4,
        "code": {"commit": "4fbfce8a1b2c3d4e5f60718293a4b5c6d7e8f901", "dirty": False},
        "packages": {"ml-core": "0.1.0", "torch": "2.13.0", "numpy": "2.3.1"},
        "hardware": {
            "system": "Linux-6.1.0-x86_64",
            "processor": "AMD EPYC 9654 96-Core Processor",
            "cores_available": 2,
            "memory_gib": 15.6,
            "gpu": None,
        },
        "data": {
            "train": fabricate_split("train", 20_000),
            "valid": fabricate_split("valid", NUM_PATCHES),
        },
        "model": {"name": "cnn", "num_parameters": 330_242, "flops_per_patch": 121_600_000},
        "first_batch": {
            "shape": [256, 3, 96, 96],
            "dtype": "uint8",
            "low": 0.0,
            "high": 255.0,
            "positives": 128,
            "patches": 256,
            "device": "cpu",
        },
        "best": {
            "epoch": 8,
            "metric": "val_roc_auc",
            "value": 0.9312,
            "weights_sha256": predictions.weights_sha256,
        },
        "findings": [],
    }
    RunRecord(**{**fields, **changes}).save(run)
    run.config_path.write_text(
        f"experiment_name: pcam_cnn\nseed: {seed}\ndata:\n  data_path: /data/pcam\n"
        "  batch_size: 256\nmodel:\n  name: cnn\ntraining:\n  epochs: 10\n",
        encoding="utf-8",
    )
    if logs:
        fabricate_logs(run, seed)
    predictions.save(run.predictions_path("valid"))
    write_json(run.metrics_path, evaluate_predictions(predictions, 0.5, num_resamples=200))
    return run


NOT_LEARNING = Finding(
    "not-learning",
    "error",
    "the validation ROC-AUC 0.503 cannot be told from chance (95 % interval 0.474 to 0.532): "
    "every patch gets nearly the same probability (0.4991 to 0.4993, 0.0002 apart).",
)


def fabricate_patches(split: str, index: np.ndarray) -> np.ndarray:
    """Return pictures in the colours of a stain, another for each row."""
    assert (np.diff(index) > 0).all(), "rows are asked for in rising order"
    patches = np.empty((len(index), 96, 96, 3), np.uint8)
    for patch, row in zip(patches, index, strict=True):
        generator = np.random.default_rng(int(row))
        tissue = generator.normal(0, 1, (12, 12, 1)).repeat(8, 0).repeat(8, 1)
        grain = generator.normal(0, 8, (96, 96, 1))
        patch[:] = np.clip(np.array([200, 140, 185]) + 25 * tissue + grain, 0, 255)
    return patches
