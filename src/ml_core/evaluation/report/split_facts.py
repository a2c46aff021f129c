"""The scores of one split and the predictions they were made from, and whether the two agree."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.report.files import FileFact, Reader
from ml_core.findings import Finding
from ml_core.runs import RunDir, RunRecord, read_json

SCORE_KEYS = (
    "split", "threshold", "n", "metrics", "baselines", "confusion", "weights_sha256", "epoch",
    "num_resamples", "level", "seed",
)  # fmt: skip
TEST_KEYS = ("sealed", "champion", "calibration", "raw_at_half", "data", "openings", "findings")
TOLERANCE = 1e-9  # between a metric as written and as recomputed from its table
SPLITS_BY_INTEREST = ("valid", "train")


@dataclass
class SplitFacts:
    """What is known of one scored split; None where a file is absent or damaged.

    `predictions` are as they are scored: calibrated where the scores say how.
    """

    scores_file: FileFact
    table: FileFact
    scores: dict[str, Any] | None = None
    predictions: Predictions | None = None
    findings: list[Finding] = field(default_factory=list)
    recomputed_difference: float | None = None  # largest, of a score and its recomputed value

    @property
    def labelled(self) -> Predictions | None:
        """The predictions, where they can be compared with a truth."""
        has_labels = self.predictions is not None and self.predictions.y_true is not None
        return self.predictions if has_labels else None


def read_valid_facts(run: RunDir, record: RunRecord, reader: Reader) -> SplitFacts:
    """Read metrics.json and the predictions it was made from, where they are there."""
    scores = reader.read(run.metrics_path, _read_scores, "scores, intervals, baselines")
    table_path = _scored_table(run, scores)
    predictions = reader.read(table_path, Predictions.load, "one row per patch")
    scores_file, table = reader.files[-2:]
    facts = SplitFacts(scores_file, table, scores, predictions)
    if scores is None and scores_file.state == "damaged":
        return facts  # which is a finding already
    if scores is None:
        message = (
            "This run has no scores: metrics.json is absent. "
            f"Write it with: ml-core evaluate {shlex.quote(str(run.path))}"
        )
        facts.findings.append(Finding("not-evaluated", "warning", message))
        return facts
    _check(facts, scores, record, "Evaluate again.")
    return facts


def read_test_facts(run: RunDir, record: RunRecord, reader: Reader) -> SplitFacts | None:
    """Read metrics-test.json and its predictions; None where the test split was not scored."""
    path = run.scores_path("test")
    if not path.is_file():
        return None
    scores = reader.read(path, _read_test_scores, "scores of the test split, at the champion's")
    raw = reader.read(run.predictions_path("test"), Predictions.load, "one row per patch, raw")
    scores_file, table = reader.files[-2:]
    facts = SplitFacts(scores_file, table, scores)
    if scores is None:
        return facts
    if raw is not None:
        facts.predictions = Calibration.from_dict(scores["calibration"]).calibrate(raw)
    _check(facts, scores, record, "Evaluate the champion again; that is counted.")
    return facts


def _read_scores(path: Path, keys: Sequence[str] = SCORE_KEYS) -> dict[str, Any]:
    scores = read_json(path)
    missing = [key for key in keys if key not in scores]
    if missing:
        raise RunError(f"{path} lacks {', '.join(missing)}. Evaluate again.")
    return scores


def _read_test_scores(path: Path) -> dict[str, Any]:
    return _read_scores(path, (*SCORE_KEYS, *TEST_KEYS))


def _scored_table(run: RunDir, scores: Mapping[str, Any] | None) -> Path:
    """Return the table that was scored, else the first there is, else where valid would be."""
    if scores is not None:
        return run.predictions_path(scores["split"])
    paths = [run.predictions_path(split) for split in SPLITS_BY_INTEREST]
    return next((path for path in paths if path.is_file()), run.predictions_path("valid"))


def _check(facts: SplitFacts, scores: dict[str, Any], record: RunRecord, again: str) -> None:
    """Note what does not hold between the scores, the predictions, and the best checkpoint."""
    name, table = facts.scores_file.name, facts.table
    scored, best = scores.get("weights_sha256"), record.best.get("weights_sha256")
    if scored and best and scored != best:
        message = (
            f"The weights that were scored ({scored[:12]}, epoch {scores.get('epoch')}) are not "
            f"the best of this run ({best[:12]}, epoch {record.best.get('epoch')})."
        )
        facts.findings.append(Finding("scored-weights-are-not-the-best", "warning", message))
    if facts.predictions is None:
        message = f"The scores cannot be recomputed: {table.name} is {table.state}."
        facts.findings.append(Finding("scores-not-recomputed", "warning", message))
        return
    if facts.predictions.weights_sha256 != scored:
        message = (
            f"{name} scores the weights {scored}, but {table.name} "
            f"was made with {facts.predictions.weights_sha256}. {again}"
        )
        facts.findings.append(Finding("predictions-of-other-weights", "error", message))
    if facts.labelled is not None:
        wrong, facts.recomputed_difference = _compare(facts.labelled, scores)
        if wrong:
            message = f"{name} is not what {table.name} gives: {'; '.join(wrong)}. {again}"
            facts.findings.append(Finding("scores-do-not-match-predictions", "error", message))


def _compare(predictions: Predictions, scores: dict[str, Any]) -> tuple[list[str], float]:
    """Return the metrics that the table does not give, with both values; and the largest gap."""
    recomputed = predictions.metrics(scores["threshold"])
    wrong, largest = [], 0.0
    if scores["n"] != len(predictions):
        wrong.append(f"n is {scores['n']}, the table has {len(predictions)} patches")
    for name, metric in scores["metrics"].items():
        written = math.nan if metric["value"] is None else float(metric["value"])
        known = recomputed.get(name, math.nan)
        if math.isnan(written) and math.isnan(known):
            continue
        gap = abs(written - known)
        largest = max(largest, gap)  # a NaN on one side only does not raise it, but is named
        if not gap <= TOLERANCE:
            wrong.append(f"{name} is {written:.6g}, the table gives {known:.6g}")
    return wrong, largest
