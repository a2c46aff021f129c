"""What the jobs will work on: the config they read, wherever the words name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ml_core.config import Config
from ml_core.errors import ConfigError, RunError
from ml_core.pipeline.searching.named_study import find_study
from ml_core.pipeline.submitting.words import BEGIN_RUNS, CHAIN, SEARCH, Words
from ml_core.runs import RunDir, RunRecord, read_json

SEVERAL = ("compare", "select")  # all their places are runs; of others the first is
READ_RUNS = ("evaluate", "explain", "slice", "predict", "report", *SEVERAL)


@dataclass(frozen=True)
class Subject:
    """A config, and whether it begins something new: the job then reads a snapshot of it."""

    config: Config | None
    is_new: bool
    name: str  # of the experiment, else of what the words name
    output_dir: Path


def read_subject(words: Words) -> Subject:
    """Return what `words` are about; the config of a run or champion is that of the run.

    Raises ConfigError, and RunError for what is no run or study, and for a study to be made where
    there is something else.
    """
    path, is_new = _config_path(words)
    if path is None:
        name = words.places[0].stem if words.places else words.verb
        return Subject(None, False, name, Path.cwd() / "runs")
    config = Config.load(path, words.overrides)
    if words.study is not None:
        find_study(words.study, config)
    if words.verb in SEARCH and config.search is None:
        raise ConfigError(
            f"{path} has no section `search`, so there is nothing to tune. Add one (see "
            "docs/config.md), or train it: ml-core submit run CONFIG."
        )
    return Subject(config, is_new, config.experiment_name, config.output_dir)


def _config_path(words: Words) -> tuple[Path | None, bool]:
    """Return the file of the config, and whether the user named it as such."""
    if words.resume is not None:
        if words.verb == "tune":
            _check_study(words.resume)
        else:
            _check_run(words.verb, words.resume)
        return words.resume / "config.yaml", False
    if not words.places:
        return None, False
    first = words.places[0]
    if words.verb in READ_RUNS:
        for path in words.places if words.verb in SEVERAL else (first,):
            _check_readable(path)
    if words.verb in (*BEGIN_RUNS, CHAIN) or (words.verb == "audit" and first.is_file()):
        return first, True
    if first.suffix == ".json" and first.is_file():
        first = _run_of(first)
    found = first / "config.yaml"
    return (found, False) if found.is_file() else (None, False)


def _check_run(verb: str, path: Path) -> None:
    """Raise RunError for what is no run, and where training it has ended: `run` goes on then."""
    status = RunRecord.load(RunDir.open(path)).status
    if verb == "train" and status in ("completed", "stopped_early", "pruned"):
        raise RunError(
            f"{path} is {status}; there is nothing to resume. To evaluate and report it: ml-core "
            f"submit run --resume {path}"
        )


def _check_readable(path: Path) -> None:
    """Raise RunError for what is neither a run nor a study, nor a champion.json."""
    if path.is_dir():
        if not any((path / name).is_file() for name in ("run.json", "study.json")):
            raise RunError(f"{path} is neither a run nor a study: no run.json, no study.json.")
    elif path.suffix != ".json":
        raise RunError(f"{path} is neither a run's directory nor a champion.json.")


def _check_study(path: Path) -> None:
    if not (path / "study.json").is_file():
        raise RunError(f"{path} is not a study: it has no study.json.")


def _run_of(champion_path: Path) -> Path:
    """Return the run that a champion.json names, by a path from its folder or from / on."""
    run = read_json(champion_path).get("run")
    path = run.get("path", "") if isinstance(run, dict) else ""
    return champion_path.parent / str(path)
