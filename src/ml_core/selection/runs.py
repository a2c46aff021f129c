"""A candidate: one run as its files tell it, and whether it may count."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml_core.data.checks import hash_file
from ml_core.errors import MLCoreError, RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.runs import RunDir, RunRecord, read_json
from ml_core.yaml_file import read_yaml

SPLIT = "valid"  # the split that chooses; no other is ever read here
# As checkpoint.py names them: importing it would load torch, which a comparison has no use for.
BEST_WEIGHTS = Path("best") / "model.safetensors"

STATUS_REASONS = {
    "running": "it has not ended, or was killed; go on with: ml-core train --resume",
    "interrupted": "it was interrupted; go on with: ml-core train --resume",
    "failed": "it failed",
    "diverged": "it diverged: a loss or gradient was not finite",
    "pruned": "it was pruned: the search stopped it early",
}


@dataclass(frozen=True)
class Candidate:
    """A run that was trained to its end; `scores` is its metrics.json, None where there is none.

    `weights_sha256` is the hash of its best weights: of the file where there is one, else the one
    that run.json noted (a run may be carried about without its checkpoints).
    """

    run: RunDir
    record: RunRecord
    config: Mapping[str, Any]
    scores: Mapping[str, Any] | None
    weights_sha256: str
    has_weights: bool  # whether the file is there

    @property
    def name(self) -> str:
        """The run's folder; of a trial, whose folder is always `run`, its number in the study."""
        trial = self.record.study.get("trial")
        return self.run.name if trial is None else f"trial {trial:04d}"

    @property
    def has_learned(self) -> bool:
        """Whether the watch over training found no "not-learning"."""
        return all(finding.id != "not-learning" for finding in self.record.findings)

    @property
    def simplicity(self) -> tuple[float, float, str]:
        """A sort key: fewest parameters, then fewest FLOPs, then name; unknown comes last."""
        model = self.record.model
        unknown = float("inf")
        return (
            model.get("num_parameters", unknown),
            model.get("flops_per_patch") or unknown,
            self.name,
        )


@dataclass(frozen=True)
class LeftOut:
    """A run that was given and does not count, and why."""

    path: Path
    reason: str


def read_candidates(runs: Iterable[RunDir]) -> tuple[list[Candidate], list[LeftOut]]:
    """Return the runs that were trained to their end, each once, and the others with reasons.

    A run is known by its run_id: given twice, or copied to another folder, it counts once.
    """
    kept: dict[str, Candidate] = {}
    left_out = []
    for run in runs:
        try:
            candidate = _read_candidate(run)
        except MLCoreError as error:
            left_out.append(LeftOut(run.path, str(error)))
            continue
        first = kept.setdefault(candidate.record.run_id, candidate)
        if first is not candidate:
            is_same = first.run.path.resolve() == run.path.resolve()
            reason = (
                "it was given twice; it counts once"
                if is_same
                else f"it is a copy of {first.run.path}; a run counts once"
            )
            left_out.append(LeftOut(run.path, reason))
    return list(kept.values()), left_out


def check_scores(candidate: Candidate) -> None:
    """Raise RunError unless metrics.json holds scores of the best weights on validation."""
    run, scores = candidate.run, candidate.scores
    if scores is None:
        raise RunError(f"it is not evaluated; do so with: ml-core evaluate {run.path}")
    if not isinstance(scores.get("metrics"), Mapping) or "threshold" not in scores:
        raise RunError(f"its metrics.json is damaged; evaluate again: ml-core evaluate {run.path}")
    if (split := scores.get("split")) != SPLIT:
        raise RunError(
            f"its metrics.json is of split {split!r}, and runs are compared on {SPLIT!r}; "
            f"evaluate again: ml-core evaluate {run.path}"
        )
    _check_weights(candidate, scores.get("weights_sha256"), "its scores")
    if run.predictions_path(SPLIT).is_file():
        load_predictions(candidate)


def load_predictions(candidate: Candidate) -> Predictions:
    """Return the validation predictions of the best weights, in order of index.

    Raises RunError where there are none, they are of another split or of other weights, have no
    labels, or hold something that is no probability.
    """
    path = candidate.run.predictions_path(SPLIT)
    table = Predictions.load(path)
    if table.split != SPLIT:
        raise RunError(f"{path} holds split {table.split!r}; runs are compared on {SPLIT!r}.")
    _check_weights(candidate, table.weights_sha256, "its predictions")
    if table.y_true is None:
        raise RunError(f"{path} has no labels, so nothing can be scored. Evaluate again.")
    bad = ~(np.isfinite(table.logit) & (table.y_prob >= 0) & (table.y_prob <= 1))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise RunError(
            f"{path} holds {int(bad.sum()):,} of {len(table):,} values that are no probability, "
            f"the first at index {table.index[first]}: {table.y_prob[first]}. Its model is broken; "
            "train it again."
        )
    order = np.argsort(table.index)
    columns = ("index", "y_true", "y_prob", "logit")
    return dataclasses.replace(table, **{name: getattr(table, name)[order] for name in columns})


def best_weights_sha256(run: RunDir) -> str | None:
    """Return the SHA-256 of the best checkpoint's weights as they are now; None without any."""
    try:
        return hash_file(run.checkpoints_dir / BEST_WEIGHTS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{run.checkpoints_dir / BEST_WEIGHTS} cannot be read: {error}.") from error


def _read_candidate(run: RunDir) -> Candidate:
    """Read the files of `run`; raises RunError when it did not end, or they are damaged."""
    record = RunRecord.load(run)
    if record.status in STATUS_REASONS:
        error = f" ({record.error})" if record.error else ""
        raise RunError(STATUS_REASONS[record.status] + error)
    noted, found = record.best.get("weights_sha256"), best_weights_sha256(run)
    if not noted:
        raise RunError("its run.json names no best weights")
    if found is not None and found != noted:
        raise RunError(
            f"its best weights have changed since it was trained: they were {noted[:12]} and are "
            f"{found[:12]}"
        )
    return Candidate(
        run=run,
        record=record,
        config=read_yaml(run.config_path),
        scores=read_json(run.metrics_path) if run.metrics_path.is_file() else None,
        weights_sha256=noted,
        has_weights=found is not None,
    )


def _check_weights(candidate: Candidate, scored: str | None, what: str) -> None:
    if scored != candidate.weights_sha256:
        raise RunError(
            f"{what} are of other weights ({(scored or 'unknown')[:12]}) than its best checkpoint "
            f"({candidate.weights_sha256[:12]}); evaluate again: "
            f"ml-core evaluate {candidate.run.path}"
        )
