"""A fabricated run as champion, its test split opened: champion.json and metrics-test.json."""

import hashlib

import numpy as np
from fabricated_run import NUM_PATCHES, fabricate_predictions, fabricate_split

from ml_core.evaluation.baselines import BaselineTable
from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.cross_fit import calibration_report
from ml_core.evaluation.predictions import evaluate_predictions
from ml_core.evaluation.prior_shift import at_prevalence
from ml_core.evaluation.threshold import ThresholdRule, choose_threshold
from ml_core.runs import RunDir, RunRecord, write_json

RESAMPLES = 200
SAID = "This test set was opened 3 times, by 2 champions; once unsealed."
LEAK = {
    "id": "duplicates-across-splits",
    "severity": "warning",
    "message": "valid: 49 of 1,500 patches (3.3 %) are in test too, pixel for pixel "
    "(test: 53 of 1,500 patches (3.5 %)).",
}


def fabricate_baselines(predictions, seed=0):
    """Return six baselines, the last three weaker and weaker copies of the model."""
    generator = np.random.default_rng(seed)
    noise = {"mean_colour": 6.0, "colour_histogram": 4.0, "random_features": 3.0}
    y_prob = {
        "always_positive": np.ones(NUM_PATCHES),
        "always_negative": np.zeros(NUM_PATCHES),
        "prior": np.full(NUM_PATCHES, 0.5),
    }
    for name, spread in noise.items():
        logit = predictions.logit + spread * generator.normal(size=NUM_PATCHES)
        y_prob[name] = 1 / (1 + np.exp(-logit / 2))
    facts = {"key": "0" * 16, "fitted_on": 20_000}
    return BaselineTable(predictions.split, predictions.index, predictions.labels, y_prob, facts)


def fabricate_champion(run: RunDir) -> dict:
    """Return the content of a champion.json that chose `run`, with its "sha256"."""
    record = RunRecord.load(run)
    raw = fabricate_predictions(record.seed)
    calibration, facts = calibration_report("temperature", raw.labels, raw.logit)
    calibrated = calibration.calibrate(raw)
    chosen = choose_threshold(
        raw.labels, calibrated.y_prob, ThresholdRule("recall", at_least=0.95), RESAMPLES
    )
    scores = evaluate_predictions(
        calibrated, chosen.value, RESAMPLES, baselines=fabricate_baselines(raw)
    )
    difference = {"value": 0.93, "other": 0.91, "difference": 0.02, "low": 0.01, "high": 0.03}
    return {
        "created_at": "2026-01-03T00:00:00+00:00",
        "command": "ml-core select runs/pcam_cnn",
        "rule": {"rule": "best_mean", "metric": "roc_auc"},
        "run": {"path": run.name, "name": run.name, "run_id": record.run_id,
                "weights_sha256": record.best["weights_sha256"], "epoch": 8, "seed": record.seed,
                "experiment_name": record.experiment_name},
        "evidence": {"metrics": scores["metrics"],
                     "chosen_for": "the highest mean ROC-AUC over 3 seeds, 0.931"},
        "runner_up": {"run": {"name": "20260102-030405-seed7"}, "threshold": 0.2,
                      "differences": {"roc_auc": {**difference, "p_value": 0.004},
                                      "f2": {**difference, "p_value": 0.02}}},
        "threshold": chosen.to_dict(),
        "calibration": facts,
        "prior_shift": {**at_prevalence(
            chosen.expected["recall"], chosen.expected["specificity"], 0.02)},
        "baselines": {
            name: {"metrics": each, "threshold": 0.5, "beaten": True,
                   "differences": {"roc_auc": {**difference, "p_value": 0.001},
                                   "f2": {**difference, "p_value": 0.001}}}
            for name, each in scores["baselines"].items()
        },
        "data": {}, "code": {}, "findings": [], "version": 1,
        "sha256": hashlib.sha256(run.name.encode()).hexdigest(),
    }  # fmt: skip


def fabricate_test(run: RunDir, *, sealed: bool = True, **changes) -> dict:
    """Open the test split for `run`, which becomes the champion if `sealed`; return the scores."""
    record = RunRecord.load(run)
    champion = fabricate_champion(run) if sealed else None
    raw = fabricate_predictions(
        record.seed + 50,
        split="test",
        run_id=record.run_id,
        weights_sha256=record.best["weights_sha256"],
    )
    raw.save(run.predictions_path("test"))
    calibration = Calibration.from_dict(champion["calibration"]) if champion else Calibration()
    threshold = champion["threshold"]["value"] if champion else 0.5
    scores = evaluate_predictions(
        calibration.calibrate(raw), threshold, RESAMPLES, baselines=fabricate_baselines(raw)
    )
    at_half = evaluate_predictions(raw, 0.5, RESAMPLES)
    metrics = scores["metrics"]
    scores |= {
        "sealed": sealed,
        "champion": champion,
        "calibration": calibration.to_dict(),
        "prior_shift": {**at_prevalence(
            metrics["recall"], metrics["specificity"], 0.02)} if sealed else None,
        "raw_at_half": {key: at_half[key] for key in ("threshold", "metrics", "confusion")},
        "data": fabricate_split("test", NUM_PATCHES),
        "openings": {"said": SAID, "num": 3, "num_champions": 2, "num_unsealed": 1},
        "findings": [LEAK],
    }  # fmt: skip
    scores |= changes
    write_json(run.scores_path("test"), scores)
    return scores
