"""Runs to choose among, on the same patches, without any training."""

import copy
import hashlib
import shutil
from pathlib import Path

import numpy as np
import yaml
from fabricated_run import NUM_PATCHES, fabricate_predictions, fabricate_run

from ml_core.evaluation.baselines import BaselineTable
from ml_core.evaluation.predictions import Predictions, evaluate_predictions
from ml_core.runs import RunDir, RunRecord, write_json

LABELS = np.random.default_rng(2026).integers(0, 2, NUM_PATCHES)


def fabricate_logits(seed: int, separation: float, labels=LABELS) -> np.ndarray:
    noise = np.random.default_rng(seed + 1000).normal(size=len(labels))
    return 1.6 * (separation * (2 * labels - 1) / 2 + 1.05 * noise)


def fabricate_candidate(
    parent: Path,
    seed: int = 1,
    separation: float = 2.3,
    *,
    lr: float = 0.003,
    selection: dict | None = None,
    logit: np.ndarray | None = None,
    labels: np.ndarray = LABELS,
    num_resamples: int = 100,
    **changes,
) -> RunDir:
    """Write an evaluated run with a best checkpoint; `changes` are fields of its record."""
    record, raw = _template(parent)
    run = RunDir.create(parent, f"20260102-030405-seed{seed}-lr{lr:g}")
    record.seed = seed
    record.run_id = hashlib.md5(str(run.path).encode()).hexdigest()
    record.best["weights_sha256"] = write_weights(run, f"{seed} {lr} {separation}")
    for key, value in changes.items():
        setattr(record, key, value)
    record.save(run)
    raw |= {
        "seed": seed,
        "output_dir": str(parent),
        "optimizer": {"name": "adamw", "lr": lr},
        "evaluation": {"num_resamples": num_resamples},
        "selection": selection or {"threshold": {"rule": "f_beta"}},
    }
    run.config_path.write_text(yaml.safe_dump(raw))
    logit = fabricate_logits(seed, separation, labels) if logit is None else logit
    save_predictions(run, logit, labels)
    return run


_templates: list[tuple[RunRecord, dict]] = []


def _template(parent: Path) -> tuple[RunRecord, dict]:
    """Return a record and a config to be changed, of one run that is fabricated once."""
    if not _templates:
        run = fabricate_run(parent / "template", logs=False)
        _templates.append((RunRecord.load(run), yaml.safe_load(run.config_path.read_text())))
        shutil.rmtree(parent / "template")
    return copy.deepcopy(_templates[0])


def write_weights(run: RunDir, content: str) -> str:
    """Give the run a best checkpoint as checkpoint.py lays it out; return the weights' SHA-256."""
    folder = run.checkpoints_dir / "step-00000790"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(content)
    best = run.checkpoints_dir / "best"
    if not best.is_symlink():
        best.symlink_to(folder.name)
    return hashlib.sha256(content.encode()).hexdigest()


def save_predictions(run: RunDir, logit: np.ndarray, labels=LABELS, **changes) -> Predictions:
    """Write predictions and metrics.json of the run's best weights."""
    record = RunRecord.load(run)
    fields = {
        "index": np.arange(len(labels)),
        "y_true": labels,
        "logit": logit,
        "y_prob": 1 / (1 + np.exp(-logit)),
        "run_id": record.run_id,
        "weights_sha256": record.best["weights_sha256"],
        **changes,
    }
    predictions = fabricate_predictions(**fields)
    predictions.save(run.predictions_path(predictions.split))
    if np.isfinite(predictions.y_prob).all():
        write_json(run.metrics_path, evaluate_predictions(predictions, 0.5, num_resamples=30))
    return predictions


def fabricate_baselines(labels=LABELS, separation: float = 0.8) -> BaselineTable:
    """Return baselines of which those fitted on train are weak by default."""
    fitted = {
        name: 1 / (1 + np.exp(-fabricate_logits(seed, separation * share, labels)))
        for name, seed, share in (
            ("mean_colour", 101, 0.6),
            ("colour_histogram", 102, 0.8),
            ("random_features", 103, 1.0),
        )
    }
    constants = {
        name: np.full(len(labels), value)
        for name, value in (("always_positive", 1.0), ("always_negative", 0.0), ("prior", 0.5))
    }
    return BaselineTable("valid", np.arange(len(labels)), labels, {**constants, **fitted})
