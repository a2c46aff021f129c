"""champion.json: the one run that is chosen, frozen with its operating point and its evidence.

Whoever opens it can tell which weights were chosen, by which rule, and what was known then. The
test split is opened for a champion only, and always with the threshold and calibration in here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ml_core.durable import written_aside
from ml_core.errors import RunError, first_problem
from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.threshold import ChosenThreshold
from ml_core.findings import Finding
from ml_core.runs import RunDir, RunRecord, read_json, write_json
from ml_core.selection.runs import Candidate, best_weights_sha256

VERSION = 1

logger = logging.getLogger("ml_core.select")


class ChampionRun(TypedDict):
    """Which run, and which of its weights."""

    path: str  # relative to the folder of champion.json where that is possible
    name: str
    run_id: str
    weights_sha256: str
    epoch: int
    seed: int
    experiment_name: str


@dataclass(frozen=True)
class Champion:
    """The content of champion.json; everything in it is JSON-able.

    `threshold` and `calibration` are what `ChosenThreshold.from_dict` and `Calibration.from_dict`
    read: the threshold is for calibrated probabilities. `data` names, for each split, the files'
    SHA-256 and the number of patches that were used.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # read by pydantic; no field of the record

    created_at: str  # UTC, ISO 8601
    command: str
    rule: dict[str, Any]
    run: ChampionRun
    evidence: dict[str, Any]
    runner_up: dict[str, Any] | None
    threshold: dict[str, Any]
    calibration: dict[str, Any]
    prior_shift: dict[str, Any] | None
    baselines: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]
    code: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    version: int = VERSION

    @classmethod
    def load(cls, path: Path) -> Champion:
        """Read champion.json; raises RunError where it is missing, damaged, or another file."""
        if path.is_file() and path.suffix != ".json":
            raise RunError(
                f"{path} is neither a run's directory nor the champion.json that ml-core select "
                "writes."
            )
        content = read_json(path)
        if path.name == "run.json":
            raise RunError(f"{path} is the record of a run; give its folder, {path.parent}.")
        if content.get("version", VERSION) != VERSION:
            raise RunError(
                f"{path} is of version {content['version']}; this release reads version {VERSION}. "
                "Choose the champion again: ml-core select."
            )
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            raise RunError(
                f"{path} is not a champion: {first_problem(error)}. "
                "Give the file that ml-core select wrote, or choose again."
            ) from error

    def operating_point(self, path: Path) -> tuple[Calibration, float]:
        """Return how logits become probabilities and from which of them on tumour is called.

        Raises RunError, naming `path`, where what it takes to decide with them is damaged.
        """
        try:
            for baseline in self.baselines.values():
                float(baseline["threshold"])
            if missing := {"train", "valid"} - set(self.data):
                raise RunError(f"its data lack {', '.join(sorted(missing))}.")
            threshold = ChosenThreshold.from_dict(self.threshold).value
            return Calibration.from_dict(self.calibration), threshold
        except (RunError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} is damaged: {error} Put it back as ml-core select wrote it."
            ) from error

    def save(self, path: Path) -> None:
        """Write champion.json atomically; raises RunError when it cannot be written."""
        try:
            write_json(path, dataclasses.asdict(self))
        except OSError as error:
            raise RunError(
                f"cannot write {path}: {error.strerror or error}. "
                "Give a file in a folder that you may write to: --out."
            ) from error

    def run_dir(self, champion_path: Path) -> RunDir:
        """Return the champion's run, seen from where champion.json lies; it may be gone."""
        return RunDir(Path(os.path.normpath(champion_path.resolve().parent / self.run["path"])))

    def check(self, champion_path: Path) -> RunDir:
        """Return the run, if it is there with the very weights that were chosen; else RunError."""
        run = self.run_dir(champion_path)
        chosen = f"{champion_path} chose {self.run['name']}"
        if not run.record_path.is_file():
            raise RunError(
                f"{chosen}, but there is no run at {run.path}. Put it back (runs and champion.json "
                "can be moved together), or choose again: ml-core select."
            )
        if (found := RunRecord.load(run).run_id) != self.run["run_id"]:
            raise RunError(
                f"{chosen} with run_id {self.run['run_id'][:12]}, but at {run.path} is now the run "
                f"{found[:12]}. Put the old one back, or choose again: ml-core select."
            )
        weights, expected = best_weights_sha256(run), self.run["weights_sha256"]
        if weights != expected:
            state = f"{weights[:12]}" if weights else "missing"
            raise RunError(
                f"{chosen} with the weights {expected[:12]} of epoch {self.run['epoch']}, but its "
                f"best checkpoint is {state}: another model would be tested. Put the weights "
                "back, or choose again: ml-core select."
            )
        return run


def name_run(candidate: Candidate, champion_path: Path) -> ChampionRun:
    """Return how champion.json names a run."""
    record = candidate.record
    return {
        "path": path_from(champion_path, candidate.run),
        "name": candidate.name,
        "run_id": record.run_id,
        "weights_sha256": candidate.weights_sha256,
        "epoch": int(record.best["epoch"]),
        "seed": record.seed,
        "experiment_name": record.experiment_name,
    }


def path_from(champion_path: Path, run: RunDir) -> str:
    """Return where `run` is, seen from the folder of champion.json: relative, so that both can be
    moved together, but where they have nothing in common but the root.
    """
    here, there = champion_path.resolve().parent, run.path.resolve()
    if os.path.commonpath([here, there]) == os.path.sep:
        return str(there)
    return os.path.relpath(there, here)


def freeze(champion: Champion, path: Path) -> tuple[Path | None, bool]:
    """Write champion.json; return where a former champion was kept, and whether it is a new one.

    Choosing again with the same result leaves the file as it is: its hash is what the ledger of
    the test split knows it by. A former champion, or whatever else was there, is kept beside it as
    champion-1.json, champion-2.json, ...; it is never overwritten. Raises RunError when the folder
    cannot be written.
    """
    if not path.exists():
        champion.save(path)
        return None, True
    try:
        if _content(Champion.load(path)) == _content(champion):
            return None, False
    except RunError as error:
        logger.warning("%s It is kept.", error)
    try:
        kept = _keep_aside(path)
    except OSError as error:
        raise RunError(
            f"{path} holds another champion, which cannot be kept beside it: "
            f"{error.strerror or error}. Nothing is changed; give another file: --out."
        ) from error
    champion.save(path)
    return kept, True


def _content(champion: Champion) -> Any:
    """Return what was chosen and why, as it reads in the file, without when and by which words."""
    whole = dataclasses.asdict(dataclasses.replace(champion, created_at="", command=""))
    return json.loads(json.dumps(whole), parse_constant=lambda _: None)  # NaN is null in the file


def _keep_aside(path: Path) -> Path:
    """Copy `path` to a name that nobody has taken, and return it."""
    content = path.read_bytes()
    for number in itertools.count(1):
        aside = path.with_name(f"{path.stem}-{number}{path.suffix}")
        with contextlib.suppress(FileExistsError):
            aside.touch(exist_ok=False)  # so that of two at once only one has the name
            try:
                with written_aside(aside) as new:
                    new.write_bytes(content)
            except OSError:
                aside.unlink()
                raise
            return aside
    raise AssertionError("numbers do not end")


def sha256_of_champion(path: Path) -> str:
    """Return the SHA-256 of what champion.json says, whatever its indentation or order of keys."""
    return sha256_of_json(read_json(path))


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in its one canonical spelling."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
