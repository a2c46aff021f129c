"""What MLflow is told of a run: its parameters, tags, name and files, as MLflow can hold them."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ml_core.errors import RunError
from ml_core.runs import RunDir, RunRecord

# MLflow's own limits (mlflow/utils/validation.py).
MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000

TRIAL_STATE = {
    "running": "running",
    "completed": "complete",
    "stopped_early": "complete",
    "pruned": "pruned",
}  # of a status of run.json; every other one is "failed"


def describe_params(run: RunDir) -> dict[str, str]:
    """Return the resolved config as MLflow's parameters: `optimizer.lr` -> `0.001`."""
    try:
        config = yaml.safe_load(run.config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{run.config_path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise RunError(f"{run.config_path} does not hold a mapping of keys to values.")
    return as_params(config, "config.yaml")


def describe_tags(record: RunRecord) -> dict[str, str]:
    """Return what MLflow shows beside a run: code, data, machine, seed, status and findings."""
    findings = "\n".join(f"- **{f.severity}** {f.id}: {f.message}" for f in record.findings)
    tags: dict[str, Any] = {
        "status": record.status,
        "seed": record.seed,
        "command": record.command,
        "commit": record.code.get("commit"),
        "mlflow.source.git.commit": record.code.get("commit"),
        "dirty": record.code.get("dirty"),
        "host": record.hardware.get("hostname"),
        "error": record.error,
        "mlflow.note.content": findings or None,
    }
    tags |= {f"data.{key}": value for key, value in _flatten(record.data) if "sha256" in key}
    tags |= {f"finding.{f.id}": f"{f.severity}: {f.message}" for f in record.findings}
    if record.study:
        tags |= {
            "kind": "trial",
            "study_id": record.study.get("study_id"),
            "study": record.study.get("name"),
            "trial": record.study.get("trial"),
            "attempt": record.study.get("attempt"),
            "state": TRIAL_STATE.get(record.status, "failed"),
        }
    return as_tags(tags, "run.json")


def describe_name(run: RunDir, record: RunRecord) -> str:
    """Return the name MLflow lists a run under; every trial's own directory is called `run`."""
    trial = record.study.get("trial")
    return run.name if trial is None else f"trial-{int(trial):04d}"


def artifact_paths(run: RunDir) -> list[Path]:
    """Return the files of `run` that MLflow gets, of those that exist."""
    files = [run.config_path, run.record_path, run.diff_path, run.report_path]
    files += [run.scores_path(split) for split in ("valid", "train", "test")]
    files += sorted(run.predictions_path("valid").parent.glob("*.parquet"))
    files += sorted(run.figures_dir.rglob("*"))
    return [path for path in files if path.is_file()]


def as_params(tree: Mapping[str, Any], whole_in: str) -> dict[str, str]:
    """Return a nested mapping as MLflow's parameters; `whole_in` is where long ones are whole."""
    return {
        safe_key(key): _shorten(value, MAX_PARAM_LENGTH, whole_in) for key, value in _flatten(tree)
    }


def as_tags(tags: Mapping[str, Any], whole_in: str) -> dict[str, str]:
    """Return `tags` as MLflow's, without those that are None."""
    return {
        safe_key(key): _shorten(_text(value), MAX_TAG_LENGTH, whole_in)
        for key, value in tags.items()
        if value is not None
    }


def safe_key(key: str) -> str:
    """Return `key` with the characters that MLflow refuses in names replaced."""
    return re.sub(r"[^\w.\-/ ]", "_", key)[:MAX_KEY_LENGTH]


def milliseconds(time: str) -> int:
    """Return a time in ISO 8601 as MLflow counts it: milliseconds since 1970."""
    return int(dt.datetime.fromisoformat(time).timestamp() * 1000)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _shorten(value: str, limit: int, whole_in: str) -> str:
    if len(value) <= limit:
        return value
    note = f"... ({len(value)} characters; all of them in {whole_in})"
    return value[: limit - len(note)] + note
