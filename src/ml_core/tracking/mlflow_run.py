"""The run on an MLflow server that stands for one of our run directories."""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

# MLflow reads these when it is imported or called; what the user has set stays. Telemetry would
# tell a third party about every run. The other defaults (7 retries of 120 s) are the patience of a
# caller with nothing else to do: one call to a server that refuses takes 247 s.
os.environ.update(
    {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        **os.environ,
    }
)

import requests
import sqlalchemy.exc
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from ml_core.errors import RunError, TrackingError
from ml_core.runs import RunDir, RunRecord
from ml_core.tracking.sync_state import without_password
from ml_core.tracking.tracker import NOT_VALUES

RUN_ID_TAG = "ml_core.run_id"
MLFLOW_STATUS = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
    "diverged": "FAILED",
}
# MLflow's own limits (mlflow/utils/validation.py).
MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_METRICS_PER_BATCH = 1000

KNOCK_S = 5.0

P = ParamSpec("P")
T = TypeVar("T")


class MlflowRun:
    """A connection to the MLflow run of `run`, which is found by its run_id or created.

    Every method sends only what the server does not have. Raises TrackingError when the server
    cannot be reached or refuses; after that the object is spent, and a new one begins by asking the
    server what it has. Raises RunError when the run directory is damaged.
    """

    def __init__(self, run: RunDir, uri: str) -> None:
        self.run = run
        self.uri = uri
        self.sent = 0
        self.already_there = 0
        self.artifacts_sent = 0
        self.skipped = 0  # values that are not finite: MLflow's back ends disagree about them
        record = RunRecord.load(run)
        with self._reported():
            _knock(uri)
        self._client = self._call(MlflowClient, uri)  # makes the tables of a new database file
        found = self._call(self._find_or_create, record)
        self.id: str = found.info.run_id
        self.url = _page_url(uri, found.info.experiment_id, self.id)
        self._status: tuple[str, int | None] = (found.info.status, found.info.end_time)
        self._params: dict[str, str] = dict(found.data.params)
        self._tags: dict[str, str] = dict(found.data.tags)
        self._keys_there = set(found.data.metrics)
        self._steps_there: dict[str, set[int]] = {}

    def send_description(self) -> None:
        """Send the parameters (config.yaml) and the tags (run.json).

        A parameter is for ever in MLflow: where a resumed run has another value than the one that
        was sent first, the new one becomes the tag `changed.<parameter>`.
        """
        params = describe_params(self.run)
        tags = describe_tags(RunRecord.load(self.run))
        changed = {k: v for k, v in params.items() if self._params.get(k, v) != v}
        tags |= {_safe_key(f"changed.{key}"): value for key, value in changed.items()}
        new_params = {key: value for key, value in params.items() if key not in self._params}
        new_tags = {key: value for key, value in tags.items() if self._tags.get(key) != value}
        if new_params or new_tags:
            self._call(
                self._client.log_batch,
                self.id,
                params=[Param(key, value) for key, value in new_params.items()],
                tags=[RunTag(key, value) for key, value in new_tags.items()],
            )
        self._params |= new_params
        self._tags |= new_tags
        withdrawn = [key for key in self._tags if key.startswith("finding.") and key not in tags]
        for key in withdrawn:
            self._call(self._client.delete_tag, self.id, key)
            del self._tags[key]

    def send_values(self, log: Iterable[Mapping[str, Any]], x_axis: str, prefix: str) -> None:
        """Send the values of log lines, each at the line's `x_axis` ("epoch" or "step")."""
        batch: list[Metric] = []
        for record in log:
            for metric in _metrics(record, x_axis, prefix):
                if not math.isfinite(metric.value):
                    self.skipped += 1
                elif metric.step in self._steps_on_server(metric.key):
                    self.already_there += 1
                else:
                    batch.append(metric)
            while len(batch) >= MAX_METRICS_PER_BATCH:
                self._send_batch(batch[:MAX_METRICS_PER_BATCH])
                batch = batch[MAX_METRICS_PER_BATCH:]
        self._send_batch(batch)

    def send_artifacts(self, known: Mapping[str, str]) -> dict[str, str]:
        """Send the files whose SHA-256 is not the one in `known`; return all, by relative path."""
        hashes = dict(known)
        for path in artifact_paths(self.run):
            relative = path.relative_to(self.run.path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if hashes.get(relative.as_posix()) != digest:
                folder = None if relative.parent == Path() else relative.parent.as_posix()
                self._call(self._client.log_artifact, self.id, str(path), folder)
                hashes[relative.as_posix()] = digest
                self.artifacts_sent += 1
        return hashes

    def send_status(self, status: str, ended_at: str | None) -> None:
        """Set MLflow's status from ours (a key of MLFLOW_STATUS) and the time the run ended."""
        wanted = (
            MLFLOW_STATUS.get(status, "FAILED"),
            _milliseconds(ended_at) if ended_at else None,
        )
        if wanted == self._status:
            return
        if wanted[0] == "RUNNING":
            self._call(self._client.update_run, self.id, status="RUNNING")
        else:
            self._call(self._client.set_terminated, self.id, wanted[0], wanted[1])
        self._status = wanted

    def _send_batch(self, batch: list[Metric]) -> None:
        if batch:
            self._call(self._client.log_batch, self.id, metrics=batch)
            self.sent += len(batch)

    def _steps_on_server(self, key: str) -> set[int]:
        """Return the steps that the server had of `key` when this connection was made."""
        if key not in self._keys_there:
            return set()
        if key not in self._steps_there:
            history = self._call(self._client.get_metric_history, self.id, key)
            self._steps_there[key] = {metric.step for metric in history}
        return self._steps_there[key]

    def _find_or_create(self, record: RunRecord) -> Any:
        experiment_id = self._experiment_id(record.experiment_name)
        found = self._client.search_runs(
            [experiment_id], f"tags.`{RUN_ID_TAG}` = '{record.run_id}'", max_results=1
        )
        if found:
            return found[0]
        return self._client.create_run(
            experiment_id,
            start_time=_milliseconds(record.started_at),
            tags={RUN_ID_TAG: record.run_id},
            run_name=self.run.name,
        )

    def _experiment_id(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            folder = _sqlite_artifacts_dir(self.uri)
            location = None if folder is None else (folder / _safe_key(name)).as_uri()
            try:
                return str(self._client.create_experiment(name, location))
            except MlflowException:  # another run's syncer was faster
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._reported(), _sqlite_turn(self.uri):
            return function(*args, **kwargs)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn what MLflow raises into a TrackingError that says what to do."""
        try:
            yield
        except (
            MlflowException,
            requests.RequestException,
            sqlalchemy.exc.SQLAlchemyError,
            OSError,
        ) as error:
            raise TrackingError(
                f"MLflow at {without_password(self.uri)} did not take the run: "
                f"{explain(error, self.uri)}. Nothing is lost: the run's own files are complete. "
                f"When MLflow answers again: ml-core track sync {self.run.path}"
            ) from error


def describe_params(run: RunDir) -> dict[str, str]:
    """Return the resolved config as MLflow's parameters: `optimizer.lr` -> `0.001`."""
    try:
        config = yaml.safe_load(run.config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{run.config_path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise RunError(f"{run.config_path} does not hold a mapping of keys to values.")
    return {
        _safe_key(key): _shorten(value, MAX_PARAM_LENGTH, "config.yaml")
        for key, value in _flatten(config)
    }


def describe_tags(record: RunRecord) -> dict[str, str]:
    """Return what MLflow shows beside a run: code, data, machine, seed, status and findings."""
    findings = "\n".join(f"- **{f.severity}** {f.id}: {f.message}" for f in record.findings)
    tags = {
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
    return {
        _safe_key(key): _shorten(_text(value), MAX_TAG_LENGTH, "run.json")
        for key, value in tags.items()
        if value is not None
    }


def artifact_paths(run: RunDir) -> list[Path]:
    """Return the files of `run` that MLflow gets, of those that exist."""
    files = [run.config_path, run.record_path, run.diff_path, run.metrics_path, run.report_path]
    files += sorted(run.predictions_path("valid").parent.glob("*.parquet"))
    files += sorted(run.figures_dir.rglob("*"))
    return [path for path in files if path.is_file()]


def _metrics(record: Mapping[str, Any], x_axis: str, prefix: str) -> Iterator[Metric]:
    try:
        timestamp, position = _milliseconds(record["time"]), int(record[x_axis])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"a log line has no valid time or {x_axis}: {json.dumps(record)}. Remove that line."
        ) from error
    for key, value in record.items():
        if key not in NOT_VALUES and not isinstance(value, str):
            number = math.nan if value is None else float(value)
            yield Metric(_safe_key(prefix + key), number, timestamp, position)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _safe_key(key: str) -> str:
    """Return `key` with the characters that MLflow refuses in names replaced."""
    return re.sub(r"[^\w.\-/ ]", "_", key)[:MAX_KEY_LENGTH]


def _shorten(value: str, limit: int, whole_in: str) -> str:
    if len(value) <= limit:
        return value
    note = f"... ({len(value)} characters; all of them in {whole_in})"
    return value[: limit - len(note)] + note


def _milliseconds(time: str) -> int:
    return int(dt.datetime.fromisoformat(time).timestamp() * 1000)


def _knock(uri: str) -> None:
    """Raise requests.Timeout when nothing at all is answered within KNOCK_S.

    It tells a server that hangs from one that is slow: to give back 20,000 values took one on two
    busy cores 4 s.
    """
    if uri.startswith(("http://", "https://")):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=KNOCK_S)
        except requests.Timeout:
            raise
        except requests.RequestException:
            pass  # MLflow's own call says it better: it knows the user's certificates


def _page_url(uri: str, experiment_id: str, run_id: str) -> str | None:
    if not uri.startswith(("http://", "https://")):
        return None
    return f"{without_password(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def _sqlite_path(uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).absolute() if uri.startswith(prefix) else None


def _sqlite_artifacts_dir(uri: str) -> Path | None:
    """Return `mlflow-artifacts` beside the database; MLflow's default would be beside the cwd."""
    database = _sqlite_path(uri)
    return None if database is None else database.parent / f"{database.stem}-artifacts"


@contextmanager
def _sqlite_turn(uri: str) -> Iterator[None]:
    """Let one syncer of this machine at a time use a database file.

    Several runs share one (the seeds of an experiment): the first of them creates the tables, which
    MLflow does not expect to happen twice, and SQLite refuses a second writer after five seconds.
    """
    database = _sqlite_path(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(database.with_name(f"{database.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def explain(error: BaseException, uri: str) -> str:
    """Return the cause in a few words, and without the password that `uri` may hold."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    if any(isinstance(link, requests.Timeout | TimeoutError) for link in chain):
        return "no answer in time"
    if any(isinstance(link, ConnectionRefusedError) for link in chain):
        return "connection refused"
    lines = str(error).replace(uri, without_password(uri)).strip().splitlines() or [repr(error)]
    return lines[0][:300].rstrip(".")
