"""A study's directory of realistic shape without any training: trials, reports, ends, runs."""

import datetime as dt
import json
import math
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from fabricated_run import fabricate_predictions, fabricate_split, write_jsonl

from ml_core.evaluation.predictions import evaluate_predictions
from ml_core.runs import RunDir, RunRecord, write_json
from ml_core.search.space import Space
from ml_core.search.study_dir import AttemptDir, StudyDir, StudyRecord

SPACE = {
    "optimizer.name": {"choices": ["adamw", "sgd"]},
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "optimizer.momentum": {"low": 0.0, "high": 0.95, "when": {"optimizer.name": ["sgd"]}},
    "data.batch_size": {"choices": [32, 64, 128]},
    "model.dropout_rate": {"low": 0.0, "high": 0.5, "step": 0.1},
}
NUM_EPOCHS, RUNGS, REDUCTION = 9, (1, 3), 3
BEGAN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
HOST = "node017"


def fabricate_study(
    parent: Path, num_trials: int = 20, seed: int = 0, num_planned: int | None = None, **changes
) -> StudyDir:
    """Write a completed study of two workers, some trials pruned; `changes` are of its record."""
    study = StudyDir.create(parent, "study-20260102-030405")
    record = fabricate_record(num_trials=num_planned or num_trials, **changes)
    record.save(study)
    study.config_path.write_text("experiment_name: pcam_cnn_search\n", encoding="utf-8")
    space = Space.from_dict(record.space)
    generator = np.random.default_rng(seed)
    free_s = [0.0, 1.5]  # when each worker is next free, since BEGAN
    reached: dict[int, list[float]] = {rung: [] for rung in RUNGS}
    for number in range(num_trials):
        params = space.draw(seed, number)
        values, pruned = draw_curve(params, generator, reached)
        worker = int(np.argmin(free_s))
        seconds = len(values) * (6.0 + 200.0 / params.get("data.batch_size", 64))
        fabricate_trial(
            study, number, params, values, "pruned" if pruned else "complete",
            start_s=free_s[worker], seconds=seconds, worker=worker,
        )  # fmt: skip
        free_s[worker] += seconds + 0.6
    return study


def fabricate_record(**changes) -> StudyRecord:
    fields = {
        "name": "study-20260102-030405",
        "experiment_name": "pcam_cnn_search",
        "command": "ml-core tune experiments/configs/pcam_cnn_search.yaml",
        "metric": "val_roc_auc",
        "direction": "maximize",
        "num_trials": 20,
        "sampler": {"name": "tpe", "seed": 0, "multivariate": True, "n_startup_trials": 8},
        "pruner": {"name": "asha", "min_resource": 1, "reduction_factor": REDUCTION},
        "space": SPACE,
        "status": "completed",
        "started_at": BEGAN.isoformat(),
        "ended_at": (BEGAN + dt.timedelta(seconds=900)).isoformat(),
        "data": {
            "train": fabricate_split("train", 20_000),
            "valid": fabricate_split("valid", 1_500),
        },
        "code": {"commit": "4fbfce8a1b2c3d4e5f60718293a4b5c6d7e8f901", "dirty": False},
        "packages": {"ml-core": "0.1.0", "optuna": "5.0.0", "torch": "2.13.0"},
    }
    return StudyRecord(**{**fields, **changes})


def draw_curve(params, generator, reached) -> tuple[list[float], bool]:
    """Return ROC-AUC by epoch, cut short where it is not among the best third at a rung."""
    off = math.log10(params.get("optimizer.lr", 1e-3)) + 2.6
    top = 0.945 - 0.035 * off**2 - 0.05 * params.get("model.dropout_rate", 0.2) ** 2
    top = max(0.55, top - 0.004 * (params.get("data.batch_size") == 128))
    values: list[float] = []
    for epoch in range(1, NUM_EPOCHS + 1):
        rise = 1 - math.exp(-0.6 * epoch)
        values.append(float(0.5 + (top - 0.5) * rise + 0.004 * generator.normal()))
        if epoch in reached:
            reached[epoch].append(values[-1])
            better = sum(value > values[-1] for value in reached[epoch])
            if len(reached[epoch]) >= REDUCTION and better >= len(reached[epoch]) / REDUCTION:
                return values, True
    return values, False


def fabricate_trial(
    study: StudyDir,
    number: int,
    params: dict,
    values: list[float],
    state: str = "complete",
    *,
    start_s: float = 0.0,
    seconds: float = 30.0,
    worker: int = 0,
    attempt: int = 0,
    cause: str = "",
    error: str = "",
    run: bool = True,
) -> AttemptDir:
    """Write one attempt: `values` by epoch; state may also be running or lost (abandoned)."""
    folder = study.attempt(number, attempt)
    folder.path.mkdir()
    claimed = BEGAN + dt.timedelta(seconds=start_s)
    claim = {
        "number": number,
        "attempt": attempt,
        "params": params,
        "claimed_at": claimed.isoformat(),
        "worker": {"host": HOST, "pid": 4100 + worker, "pid_started": 12345, "slurm_job_id": None},
    }
    write_json(folder.claim_path, claim)
    events: list[dict] = [
        {"event": "report", "epoch": epoch, "value": None if math.isnan(value) else value}
        for epoch, value in enumerate(values, start=1)
    ]
    if state not in ("running", "lost"):
        ended = claimed + dt.timedelta(seconds=seconds)
        value = {"complete": max(values, default=None), "pruned": values[-1] if values else None}
        events.append(
            {"event": "end", "state": state, "value": value.get(state), "seconds": seconds,
             "time": ended.isoformat(), "cause": cause, "error": error}
        )  # fmt: skip
    write_jsonl(folder.journal_path, events)
    folder.heartbeat_path.touch()
    os.utime(folder.claim_path, (claimed.timestamp(), claimed.timestamp()))
    os.utime(folder.heartbeat_path, (claimed.timestamp() + seconds,) * 2)
    if state == "lost":
        write_json(folder.abandoned_path, {"by": {"host": HOST, "pid": 4101}})
    if run:
        fabricate_run_of_trial(folder.run, params, values, state)
    return folder


def fabricate_run_of_trial(run: RunDir, params: dict, values: list[float], state: str) -> None:
    """Write the run of a trial: its record, and a log of its epochs and steps."""
    run.path.mkdir()
    best = max(range(len(values)), key=values.__getitem__) if values else None
    status = {"complete": "completed", "pruned": "pruned", "failed": "failed"}.get(state, "running")
    batch_size = params.get("data.batch_size", 64)
    RunRecord(
        experiment_name="pcam_cnn_search",
        seed=42,
        command="ml-core tune experiments/configs/pcam_cnn_search.yaml",
        status=status,
        data={"train": fabricate_split("train", 20_000)},
        model={"name": "cnn", "num_parameters": 330_242, "flops_per_patch": 121_600_000},
        first_batch={"shape": [batch_size, 3, 96, 96], "dtype": "uint8", "patches": batch_size},
        best={} if best is None else {"epoch": best + 1, "value": values[best]},
    ).save(run)
    generator = np.random.default_rng(zlib.crc32(json.dumps(params, sort_keys=True).encode()))
    epochs = [
        {"epoch": epoch, "step": 10 * epoch, "val_roc_auc": value, "val_loss": 1 - value,
         "seconds": 10.0}
        for epoch, value in enumerate(values, start=1)
    ]  # fmt: skip
    steps = [
        {"step": step, "epoch": (step - 1) // 10 + 1, "loss": float(generator.uniform(0.2, 0.7)),
         "learning_rate": params.get("optimizer.lr", 1e-3), "grad_norm": 1.0, "patches_per_s": 2e3}
        for step in range(1, 10 * len(values) + 1)
    ]  # fmt: skip
    write_jsonl(run.metrics_log_path, epochs)
    write_jsonl(run.steps_log_path, steps)


def evaluate_trial(study: StudyDir, number: int, noise: float = 0.0) -> None:
    """Give the run of a trial predictions and metrics.json, as `evaluate` writes them.

    The patches are the same for all trials; `noise` is added to the logits.
    """
    run = study.attempt(number).run
    predictions = fabricate_predictions(0)
    generator = np.random.default_rng(number)
    logit = predictions.logit + noise * generator.normal(size=len(predictions.logit))
    predictions = replace(predictions, logit=logit, y_prob=1 / (1 + np.exp(-logit)))
    predictions.save(run.predictions_path("valid"))
    write_json(run.metrics_path, evaluate_predictions(predictions, 0.5, num_resamples=100))
