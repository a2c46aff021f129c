"""A run's directory: the only code that knows its file names, and the record of how it came about.

runs/pcam_cnn/20260102-030405-seed42/
    run.json  config.yaml  changes.diff        what ran: command, commit, packages, data, status
    packages.txt  data-digests.json            every package installed; a digest per 1,024 patches
    audit.json  exclusions.csv                 what was found in the data, what of it was left out
    metrics.jsonl  steps.jsonl  tensorboard/   what it logged, one line per epoch and per step
    gradients.jsonl                            the gradient norm of each layer, per step
    chain.jsonl                                digests of the state, each including the one before
    checkpoints/step-00000790/  best  last     weights and optimizer (see checkpoint.py)
    predictions/valid.parquet                  one row per patch
    metrics.json  metrics-test.json            the scores on valid, and of a champion on test
    slices.json  errors.json  uncertainty.json  where it fails (slices.csv: one row per slice)
    explain.json  features/valid.parquet       what it looks at, and what unsettles it
    test-openings.jsonl                        its own lines of the test set's ledger
    figures/  report.html  model-card.md       what evaluate and report made of it
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ml_core.durable import make_folder, sync, written_aside
from ml_core.errors import RunError, first_problem
from ml_core.findings import Finding
from ml_core.log_line import LineReader, check_tail


@dataclass(frozen=True)
class RunDir:
    """Paths of one run; nothing here creates a file except `create`."""

    path: Path

    @classmethod
    def create(cls, parent: Path, name: str) -> RunDir:
        """Make a directory nobody has used: `parent/name`, or `name-2`, `name-3`, ... if taken."""
        try:
            make_folder(parent)
            for attempt in range(1, 1000):
                path = parent / (name if attempt == 1 else f"{name}-{attempt}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                sync(parent)  # what is fsynced below must not vanish with this name
                return cls(path)
        except OSError as error:
            raise RunError(
                f"cannot write a run directory in {parent}: {error.strerror}. "
                "Set output_dir to a folder you may write to."
            ) from error
        raise RunError(f"{parent} already holds 999 runs named {name}; set another output_dir.")

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """Return the run at `path`; raises RunError when there is none."""
        run = cls(Path(path))
        if not run.path.exists():
            raise RunError(f"{path} is not a run directory: there is nothing of that name.")
        if (run.path / "study.json").is_file():
            raise RunError(
                f"{path} is a study, not a run directory: it has a run per trial, such as "
                f"{run.path / 'trials' / '0000' / 'run'}. Its champion: ml-core select {path}."
            )
        if run.path.is_file():
            raise RunError(f"{path} is not a run directory but a file; give the run's folder.")
        if not run.record_path.is_file():
            raise RunError(f"{path} is not a run directory: it has no run.json.")
        return run

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record_path(self) -> Path:
        return self.path / "run.json"

    @property
    def diff_path(self) -> Path:
        return self.path / "changes.diff"

    @property
    def packages_path(self) -> Path:
        return self.path / "packages.txt"

    @property
    def data_digests_path(self) -> Path:
        return self.path / "data-digests.json"

    @property
    def chain_path(self) -> Path:
        return self.path / "chain.jsonl"

    @property
    def lease_path(self) -> Path:
        return self.path / "generation.json"

    @property
    def audit_path(self) -> Path:
        return self.path / "audit.json"

    @property
    def exclusions_path(self) -> Path:
        return self.path / "exclusions.csv"

    @property
    def metrics_log_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def steps_log_path(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def gradients_log_path(self) -> Path:
        return self.path / "gradients.jsonl"

    @property
    def tensorboard_dir(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints_dir(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures_dir(self) -> Path:
        return self.path / "figures"

    @property
    def metrics_path(self) -> Path:
        return self.scores_path("valid")

    @property
    def openings_copy_path(self) -> Path:
        return self.path / "test-openings.jsonl"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def model_card_path(self) -> Path:
        return self.path / "model-card.md"

    @property
    def sync_log_path(self) -> Path:
        return self.path / "sync.log"

    @property
    def lock_path(self) -> Path:
        return self.path / ".lock"

    def predictions_path(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.parquet"

    def scores_path(self, split: str) -> Path:
        """Return metrics.json for valid, which is what chooses; metrics-test.json for test."""
        return self.result_path("metrics", split)

    def result_path(self, what: str, split: str, suffix: str = ".json") -> Path:
        """Return WHAT.json for valid, which is what chooses; WHAT-test.json for test."""
        return self.path / f"{what}{'' if split == 'valid' else f'-{split}'}{suffix}"

    def slices_path(self, split: str) -> Path:
        return self.result_path("slices", split)

    def slices_csv_path(self, split: str) -> Path:
        return self.result_path("slices", split, ".csv")

    def errors_path(self, split: str) -> Path:
        return self.result_path("errors", split)

    def uncertainty_path(self, split: str) -> Path:
        return self.result_path("uncertainty", split)

    def explain_path(self, split: str) -> Path:
        return self.result_path("explain", split)

    def features_path(self, split: str) -> Path:
        return self.path / "features" / f"{split}.parquet"


@dataclass
class RunRecord:
    """What ran, on what, and how it ended; kept in run.json.

    `status` is one of: running, completed, stopped_early, pruned, interrupted, failed, diverged.
    """

    experiment_name: str
    seed: int
    command: str
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: str = "running"
    started_at: str = field(default_factory=lambda: utc_now())
    ended_at: str | None = None
    resumed_at: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)  # resolved, as in config.yaml
    code: dict[str, Any] = field(default_factory=dict)  # commit, dirty, untracked, ...
    packages: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    numerics: dict[str, Any] = field(default_factory=dict)  # level, libraries, threads, variables
    data: dict[str, Any] = field(default_factory=dict)  # per split: files, sha256, counts, subset
    audit: dict[str, Any] = field(default_factory=dict)  # path, sha256, mode, verdict, policy
    study: dict[str, Any] = field(default_factory=dict)  # of a trial: study_id, name, trial, params
    model: dict[str, Any] = field(default_factory=dict)  # name, num_parameters, flops_per_patch
    first_batch: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)  # epoch, metric, value, weights_sha256
    findings: list[Finding] = field(default_factory=list)
    error: str | None = None

    @classmethod
    def load(cls, run: RunDir) -> RunRecord:
        """Read run.json; raises RunError when it is damaged."""
        try:
            return TypeAdapter(cls).validate_python(read_json(run.record_path))
        except ValidationError as error:
            raise RunError(
                f"{run.record_path} is not a run record: {first_problem(error)}."
            ) from error

    def save(self, run: RunDir) -> None:
        write_json(run.record_path, dataclasses.asdict(self))

    def add_finding(self, finding: Finding) -> None:
        """Add `finding`, replacing an earlier one with the same id."""
        self.findings = [old for old in self.findings if old.id != finding.id] + [finding]


def utc_now() -> str:
    """Return the time in UTC as ISO 8601 with seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader sees the old or the new file, never a part."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities, unknown to JSON, as null."""
    text = json.dumps(_finite(value), indent=2, default=os.fspath, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; raises RunError when it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} does not hold a JSON object.")
    return value


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, without their checksums; a line cut short by a crash is left out.

    Nothing for a file that is not there; raises RunError for a damaged line.
    """
    if not path.is_file():
        return
    lines = LineReader(path)
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                check_tail(line, path)
                return
            yield lines.read(line)
