"""What the files of one run say, read once; what is absent or does not agree becomes a finding."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.findings import Finding, Severity
from ml_core.runs import RunDir, RunRecord, read_json, read_jsonl

T = TypeVar("T")

SCORE_KEYS = (
    "split", "threshold", "n", "metrics", "baselines", "confusion", "weights_sha256", "epoch",
    "num_resamples", "level", "seed",
)  # fmt: skip
TOLERANCE = 1e-9  # between a metric as written and as recomputed from its table

STATUS_FINDINGS: dict[str, tuple[Severity, str]] = {
    "running": ("warning", "This run has not ended: what follows is its state so far."),
    "interrupted": ("warning", "This run was interrupted before its last epoch."),
    "failed": ("error", "This run failed."),
    "diverged": ("error", "This run diverged: its loss or gradient was not finite."),
}
SPLITS_BY_INTEREST = ("test", "valid", "train")


@dataclass(frozen=True)
class FileFact:
    """One file of the run: its name, what it holds, and whether it was read, absent or damaged."""

    name: str
    holds: str
    state: str


@dataclass
class RunFacts:
    """Everything the report knows about a run; None or empty where a file is absent."""

    run: RunDir
    record: RunRecord
    config: str | None = None
    diff: str | None = None
    scores: dict[str, Any] | None = None
    predictions: Predictions | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    files: list[FileFact] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    recomputed_difference: float | None = None  # largest, of a score and its recomputed value

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights count as best, as run.json has it."""
        epoch = self.record.best.get("epoch")
        return int(epoch) if epoch is not None else None

    def state_of(self, name: str) -> str:
        """Whether the file `name` was "read", or is "absent" or "damaged"."""
        return next(file.state for file in self.files if file.name == name)

    @property
    def table(self) -> FileFact:
        """The file of the predictions."""
        return next(file for file in self.files if file.name.startswith("predictions/"))

    @property
    def labelled(self) -> Predictions | None:
        """The predictions, where they can be compared with a truth."""
        has_labels = self.predictions is not None and self.predictions.y_true is not None
        return self.predictions if has_labels else None


def read_run_facts(run: RunDir) -> RunFacts:
    """Read every file of `run` that the report shows.

    Only run.json must be there; raises RunError without it. Any other file that is damaged is a
    finding, and so is a number in metrics.json that its predictions table does not give.
    """
    facts = RunFacts(run, RunRecord.load(run))
    facts.files.append(FileFact("run.json", "command, code, packages, hardware, data", "read"))
    facts.findings += _status_findings(facts.record)
    facts.config = _read(facts, run.config_path, _read_text, "the resolved configuration")
    facts.diff = _read(facts, run.diff_path, _read_text, "changes that are in no commit")
    facts.epochs = _read(facts, run.metrics_log_path, _read_log, "one record per epoch") or []
    facts.steps = _read(facts, run.steps_log_path, _read_log, "one record per step") or []
    facts.scores = _read(facts, run.metrics_path, _read_scores, "scores, intervals, baselines")
    path = _predictions_path(facts)
    facts.predictions = _read(facts, path, Predictions.load, "one row per patch")
    facts.findings += _score_findings(facts)
    return facts


def _read(facts: RunFacts, path: Path, read: Callable[[Path], T], holds: str) -> T | None:
    """Return what `read` gives, or None; note the file's state, and a finding if it is damaged."""
    name = path.relative_to(facts.run.path).as_posix()
    state, content = "absent", None
    if path.is_file():
        try:
            content = read(path)
            state = "read"
        except (RunError, OSError, ValueError) as error:
            state = "damaged"
            message = f"{name} is damaged, so nothing is shown of it. {error}"
            facts.findings.append(Finding(f"damaged-{name}", "error", message))
    facts.files.append(FileFact(name, holds, state))
    return content


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _read_log(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


def _read_scores(path: Path) -> dict[str, Any]:
    scores = read_json(path)
    missing = [key for key in SCORE_KEYS if key not in scores]
    if missing:
        raise RunError(f"{path} lacks {', '.join(missing)}. Evaluate again.")
    return scores


def _predictions_path(facts: RunFacts) -> Path:
    """Return the table that was scored, else the first there is, else where valid would be."""
    run = facts.run
    if facts.scores is not None:
        return run.predictions_path(facts.scores["split"])
    paths = [run.predictions_path(split) for split in SPLITS_BY_INTEREST]
    return next((path for path in paths if path.is_file()), run.predictions_path("valid"))


def _status_findings(record: RunRecord) -> list[Finding]:
    findings = []
    if record.status in STATUS_FINDINGS:
        severity, message = STATUS_FINDINGS[record.status]
        reason = f" {record.error}" if record.error else ""
        findings.append(Finding(f"status-{record.status}", severity, message + reason))
    findings += record.findings
    if ignored := record.audit.get("ignored"):
        errors = "1 error" if len(ignored) == 1 else f"{len(ignored)} errors"
        message = (
            f"Trained in spite of {errors} that the audit of the data found "
            f"(data.on_findings: {record.audit['policy']}): {' '.join(ignored)}"
        )
        findings.append(Finding("audit-ignored", "error", message))
    if record.audit.get("exclusions_edited"):
        message = "The list of patches to leave out was edited by hand after the audit."
        findings.append(Finding("exclusions-edited", "warning", message))
    if record.code.get("dirty"):
        message = (
            f"The code that ran is in no commit: it is {record.code.get('commit', 'unknown')} with "
            "the changes in changes.diff."
        )
        findings.append(Finding("uncommitted-code", "warning", message))
    return findings


def _score_findings(facts: RunFacts) -> list[Finding]:
    """Return what does not hold between metrics.json, the predictions, and the best checkpoint."""
    scores, predictions = facts.scores, facts.predictions
    if scores is None and facts.state_of("metrics.json") == "damaged":
        return []  # which is a finding already
    if scores is None:
        message = (
            "This run has no scores: metrics.json is absent. "
            f"Write it with: ml-core evaluate {shlex.quote(str(facts.run.path))}"
        )
        return [Finding("not-evaluated", "warning", message)]
    findings = []
    scored, best = scores.get("weights_sha256"), facts.record.best.get("weights_sha256")
    if scored and best and scored != best:
        message = (
            f"The weights that were scored ({scored[:12]}, epoch {scores.get('epoch')}) are not "
            f"the best of this run ({best[:12]}, epoch {facts.record.best.get('epoch')})."
        )
        findings.append(Finding("scored-weights-are-not-the-best", "warning", message))
    if predictions is None:
        message = f"The scores cannot be recomputed: {facts.table.name} is {facts.table.state}."
        return [*findings, Finding("scores-not-recomputed", "warning", message)]
    if predictions.weights_sha256 != scored:
        message = (
            f"metrics.json scores the weights {scored}, but {facts.table.name} "
            f"was made with {predictions.weights_sha256}. Evaluate again."
        )
        findings.append(Finding("predictions-of-other-weights", "error", message))
    if facts.labelled is not None:
        wrong, facts.recomputed_difference = _compare(facts.labelled, scores)
        if wrong:
            message = (
                f"metrics.json is not what {facts.table.name} gives: {'; '.join(wrong)}. "
                "Evaluate again."
            )
            findings.append(Finding("scores-do-not-match-predictions", "error", message))
    return findings


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
