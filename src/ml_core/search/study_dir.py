"""A study's directory: the only code that knows its file names, and the record of the search.

runs/pcam_cnn_search/study-20260102-030405/
    study.json  config.yaml                     what is searched, how, on which data; status
    audit.json  exclusions.csv  gate.json       what the data gate let through, once for all trials
    trials/0007/  trials/0007.1/                the attempts at slot 7 (see trials.py)
    trials.csv  study.html  figures/            what was found
    optuna.journal                              the trials once more, for optuna's own tools
    champion.json                               what select froze

There is no shared journal and no lock: each trial's directory has one writer, and reading a study
is a merge of them all.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ml_core.errors import RunError, first_problem
from ml_core.findings import Finding
from ml_core.runs import RunDir, read_json, utc_now, write_json

_ATTEMPT = re.compile(r"[0-9]{4,}(\.[1-9][0-9]*)?")

Status = Literal["running", "completed", "interrupted", "failed"]
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class StudyDir:
    """Paths of one study; nothing here creates a file except `create`."""

    path: Path

    @classmethod
    def create(cls, parent: Path, name: str) -> StudyDir:
        """Make a directory nobody has used: `parent/name`, or `name-2`, `name-3`, ... if taken."""
        study = cls(RunDir.create(parent, name).path)
        study.trials_dir.mkdir()
        return study

    @classmethod
    def open(cls, path: str | Path) -> StudyDir:
        """Return the study at `path`; raises RunError when there is none."""
        study = cls(Path(path))
        if not study.record_path.is_file():
            raise RunError(f"{path} is not a study: it has no study.json.")
        return study

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record_path(self) -> Path:
        return self.path / "study.json"

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def audit_path(self) -> Path:
        return self.path / "audit.json"

    @property
    def exclusions_path(self) -> Path:
        return self.path / "exclusions.csv"

    @property
    def gate_path(self) -> Path:
        return self.path / "gate.json"

    @property
    def trials_dir(self) -> Path:
        return self.path / "trials"

    @property
    def table_path(self) -> Path:
        return self.path / "trials.csv"

    @property
    def figures_dir(self) -> Path:
        return self.path / "figures"

    @property
    def page_path(self) -> Path:
        return self.path / "study.html"

    @property
    def optuna_path(self) -> Path:
        return self.path / "optuna.journal"

    @property
    def champion_path(self) -> Path:
        return self.path / "champion.json"

    def attempt(self, number: int, attempt: int = 0) -> AttemptDir:
        """Return where an attempt at slot `number` is or would be; 0 is the first."""
        name = f"{number:04d}" + (f".{attempt}" if attempt else "")
        return AttemptDir(self.trials_dir / name)

    def attempts(self) -> list[AttemptDir]:
        """Return the directories of all attempts, by number, then attempt."""
        paths = self.trials_dir.iterdir() if self.trials_dir.is_dir() else ()
        found = [AttemptDir(path) for path in paths if _ATTEMPT.fullmatch(path.name)]
        return sorted(found, key=lambda folder: (folder.number, folder.attempt))


@dataclass(frozen=True)
class AttemptDir:
    """Paths of one attempt at a slot; nothing here creates a file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def number(self) -> int:
        """The slot."""
        return int(self.name.partition(".")[0])

    @property
    def attempt(self) -> int:
        """Which attempt at it; 0 is the first."""
        return int(self.name.partition(".")[2] or 0)

    @property
    def claim_path(self) -> Path:
        return self.path / "trial.json"

    @property
    def journal_path(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def heartbeat_path(self) -> Path:
        return self.path / "heartbeat"

    @property
    def abandoned_path(self) -> Path:
        return self.path / "abandoned.json"

    @property
    def output_path(self) -> Path:
        return self.path / "output.log"

    @property
    def run(self) -> RunDir:
        return RunDir(self.path / "run")


@dataclass
class StudyRecord:
    """What is searched, how, and how it stands; kept in study.json.

    `sampler` and `pruner` hold every argument that decides something, under `name`; `space` is the
    config's: {key: {"choices": [...]} or {"low", "high", "log", "step"}, with "when"}.
    """

    name: str
    experiment_name: str
    command: str
    metric: str
    direction: Direction
    num_trials: int
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_retries: int = 1
    lost_after_s: float = 120.0
    study_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = "running"
    started_at: str = field(default_factory=lambda: utc_now())
    ended_at: str | None = None
    resumed_at: list[str] = field(default_factory=list)
    config_sha256: str = ""
    data: dict[str, Any] = field(default_factory=dict)  # per split, as in a run's record
    code: dict[str, Any] = field(default_factory=dict)  # commit, dirty
    packages: dict[str, str] = field(default_factory=dict)
    probes: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def load(cls, study: StudyDir) -> StudyRecord:
        """Read study.json; raises RunError when it is damaged."""
        try:
            return TypeAdapter(cls).validate_python(read_json(study.record_path))
        except ValidationError as error:
            raise RunError(
                f"{study.record_path} is not a study's record: {first_problem(error)}."
            ) from error

    def save(self, study: StudyDir) -> None:
        write_json(study.record_path, dataclasses.asdict(self))

    def is_better(self, value: float, than: float) -> bool:
        """Whether `value` of the metric beats another."""
        return value > than if self.direction == "maximize" else value < than

    def trial_of(self, number: int, attempt: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the record of a trial's run says of its study."""
        return {
            "study_id": self.study_id,
            "name": self.name,
            "trial": number,
            "attempt": attempt,
            "params": dict(params),
        }
