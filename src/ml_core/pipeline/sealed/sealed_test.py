"""Score the test split: for a champion, at its frozen operating point, and counted.

In this order: the champion is checked, and that the data are those it was chosen on; the opening is
on the disk in the ledger of the test set (`ml_core.evaluation.openings`); only then is the first
test patch read. Nothing here can choose: threshold and calibration come from champion.json.

Reads champion.json (or a run, unsealed), the run's best checkpoint and the files of all splits;
writes the ledger, and into the run predictions/test.parquet with the raw logits,
metrics-test.json, figures/test-*.png and a copy of its lines of the ledger.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_core.data.checks import SplitRecord
from ml_core.data.patch_file import Rows
from ml_core.evaluation.figures import prediction_figures
from ml_core.evaluation.openings import check_openings
from ml_core.evaluation.plots import save_figures
from ml_core.evaluation.predictions import evaluate_predictions
from ml_core.evaluation.prior_shift import at_prevalence
from ml_core.findings import Finding
from ml_core.pipeline.parts.split_scores import log_scores, predict_split, split_baselines
from ml_core.pipeline.parts.splits import check_data, recorded, run_exclusions
from ml_core.pipeline.parts.trained_model import TrainedModel, load_trained
from ml_core.pipeline.sealed.audit_of_test import check_test_audit
from ml_core.pipeline.sealed.entrant import Entrant, load_entrant
from ml_core.pipeline.sealed.opening import count_openings, opened
from ml_core.runs import write_json

logger = logging.getLogger("ml_core.evaluate")

SPLITS = ("train", "valid", "test")
OUTCOME_METRICS = ("roc_auc", "pr_auc", "f2", "recall", "specificity", "precision")


def evaluate_test(
    path: Path, overrides: Iterable[str], *, unsealed: bool, command: str
) -> dict[str, Any]:
    """Return the content of metrics-test.json, with "run".

    Raises RunError for a run without `unsealed`, for a threshold that is set here, where champion,
    weights or data have changed, and where the opening cannot be written down; then no test patch
    was read. An error after that leaves the opening counted, as one that failed.
    """
    entrant = load_entrant(path, list(overrides), unsealed=unsealed)
    run, record, config = entrant.run, entrant.record, entrant.config
    exclude = run_exclusions(run, record)
    *chosen_on, test = check_data(config, SPLITS, exclude)
    entrant.refuse_other_data(chosen_on)
    trained = load_trained(run, config)
    with opened(entrant, trained.weights_sha256, test, command) as outcome:
        scores = _score(entrant, trained, test, exclude)
        openings = count_openings(run, record, config, test.x_sha256)
        findings = [
            *check_test_audit(run, test, exclude),
            *check_openings(openings, entrant.champion_sha256),
        ]
        scores |= {
            "openings": openings.to_dict(),
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
        write_json(run.scores_path("test"), scores)
        outcome["metrics"] = {name: scores["metrics"][name]["value"] for name in OUTCOME_METRICS}
    stamp = "" if entrant.champion else "UNSEALED, "
    log_scores(run, scores, f"{stamp}threshold {entrant.threshold:.4g}")
    _log_findings(findings)
    logger.info("%s", openings)
    return {"run": str(run.path), **scores}


def _score(
    entrant: Entrant, trained: TrainedModel, test: SplitRecord, exclude: Mapping[str, Rows]
) -> dict[str, Any]:
    """Predict and score the test split; save its table and figures."""
    run, record, config = entrant.run, entrant.record, entrant.config
    raw = predict_split(record, config, trained, "test", exclude)
    raw.save(run.predictions_path("test"))
    calibrated = entrant.calibration.calibrate(raw)
    resamples = (config.evaluation.num_resamples, config.seed)
    scores = evaluate_predictions(
        calibrated,
        entrant.threshold,
        *resamples,
        baselines=split_baselines(record, config, test, exclude),
        baseline_thresholds=entrant.baseline_thresholds,
    )
    at_half = evaluate_predictions(raw, 0.5, *resamples)
    figures = prediction_figures(calibrated, scores)
    save_figures(run, {f"test-{name}": figure for name, figure in figures.items()})
    return {
        **scores,
        "sealed": entrant.champion is not None,
        "champion": entrant.champion,
        "calibration": entrant.calibration.to_dict(),
        "prior_shift": _prior_shift(entrant, scores["metrics"]),
        "raw_at_half": {key: at_half[key] for key in ("threshold", "metrics", "confusion")},
        "data": recorded(config, test),
    }


def _prior_shift(entrant: Entrant, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what these calls come to where the champion will be used, if that was stated."""
    stated = entrant.champion and entrant.champion["prior_shift"]
    if not stated:
        return None
    return at_prevalence(metrics["recall"], metrics["specificity"], stated["prevalence"])


def _log_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        level = logging.INFO if finding.severity == "info" else logging.WARNING
        logger.log(level, "%s", finding.message)
