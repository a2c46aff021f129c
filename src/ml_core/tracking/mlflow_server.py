"""A connection to MLflow: a server, or a database file that syncers of one machine take turns at.

The only module that imports MLflow, which takes seconds, and which must first be told to be quiet:
the others take its names from here.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
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
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from ml_core.errors import TrackingError
from ml_core.tracking.describe import safe_key
from ml_core.tracking.sync_state import sqlite_path, without_password

__all__ = [
    "Metric",
    "MlflowException",
    "MlflowServer",
    "Param",
    "RunTag",
    "explain",
    "is_http",
    "sqlite_artifacts_dir",
]

KNOCK_S = 5.0
PAGE = 1000  # runs per answer
# Else its pages open an experiment as one about language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

P = ParamSpec("P")
T = TypeVar("T")


class MlflowServer:
    """The MLflow at `uri`, ready to be asked through `call`.

    `path` is what is being sent: an error names the command that sends it again. Raises
    TrackingError when nothing answers.
    """

    def __init__(self, uri: str, path: Path) -> None:
        self.uri = uri
        self.path = path
        with self._reported():
            _knock(uri)
        # makes the tables of a new database file
        self.client: Any = self.call(MlflowClient, uri, registry_uri=uri)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns; raises TrackingError, in words, for what it raises.

        `function` must not use `call` itself: on a database file it would wait for its own turn.
        """
        with self._reported(), _sqlite_turn(self.uri):
            return function(*args, **kwargs)

    def find_or_create_run(
        self, experiment_name: str, identity: Mapping[str, str], *, name: str, start_time: int
    ) -> Any:
        """Return MLflow's run with the tags `identity`, made now if there is none."""
        return self.call(self._find_or_create_run, experiment_name, identity, name, start_time)

    def find_runs(self, experiment_name: str, tags: Mapping[str, str]) -> list[Any]:
        """Return every run of an experiment with these tags; none for an unknown experiment."""
        return self.call(self._find_runs, experiment_name, tags)

    def run_ids(self) -> set[str]:
        """Return the id of every run, of all experiments, deleted ones too."""
        return self.call(self._run_ids)

    def page_url(self, experiment_id: str, run_id: str) -> str | None:
        """Return the address of a run's page; None for a database file."""
        return self.address(f"experiments/{experiment_id}/runs/{run_id}")

    def address(self, page: str) -> str | None:
        """Return the address of a page of the user interface; None for a database file."""
        if not is_http(self.uri):
            return None
        return f"{without_password(self.uri).rstrip('/')}/#/{page}"

    def _find_or_create_run(
        self, experiment_name: str, identity: Mapping[str, str], name: str, start_time: int
    ) -> Any:
        experiment_id = self._experiment_id(experiment_name)
        found = self.client.search_runs([experiment_id], _filter(identity), max_results=1)
        if found:
            return found[0]
        return self.client.create_run(
            experiment_id, start_time=start_time, tags=dict(identity), run_name=name
        )

    def _find_runs(self, experiment_name: str, tags: Mapping[str, str]) -> list[Any]:
        experiment = self.client.get_experiment_by_name(experiment_name)
        if experiment is None:
            return []
        return self._every_run([experiment.experiment_id], _filter(tags), ViewType.ACTIVE_ONLY)

    def _run_ids(self) -> set[str]:
        experiments = self.client.search_experiments(ViewType.ALL)
        ids = [experiment.experiment_id for experiment in experiments]
        return {run.info.run_id for run in self._every_run(ids, "", ViewType.ALL)}

    def _every_run(self, experiment_ids: list[str], query: str, view: Any) -> list[Any]:
        runs: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs(experiment_ids, query, view, PAGE, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _experiment_id(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            folder = sqlite_artifacts_dir(self.uri)
            location = None if folder is None else (folder / safe_key(name)).as_uri()
            try:
                return str(self.client.create_experiment(name, location, EXPERIMENT_TAGS))
            except MlflowException:  # another run's syncer was faster
                experiment = self.client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

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
                f"MLflow at {without_password(self.uri)} did not take {self.path.name}: "
                f"{explain(error, self.uri)}. Nothing is lost: its own files are complete. "
                f"When MLflow answers again: ml-core track sync {self.path}"
            ) from error


def is_http(uri: str) -> bool:
    """Return whether `uri` names a server, not a database file."""
    return uri.startswith(("http://", "https://"))


def sqlite_artifacts_dir(uri: str) -> Path | None:
    """Return `mlflow-artifacts` beside the database; MLflow's default would be beside the cwd."""
    database = sqlite_path(uri)
    return None if database is None else database.parent / f"{database.stem}-artifacts"


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


def _filter(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _knock(uri: str) -> None:
    """Raise requests.Timeout when nothing at all is answered within KNOCK_S.

    It tells a server that hangs from one that is slow: to give back 20,000 values took one on two
    busy cores 4 s.
    """
    if is_http(uri):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=KNOCK_S)
        except requests.Timeout:
            raise
        except requests.RequestException:
            pass  # MLflow's own call says it better: it knows the user's certificates


@contextmanager
def _sqlite_turn(uri: str) -> Iterator[None]:
    """Let one syncer of this machine at a time use a database file.

    Several runs share one (the seeds of an experiment): the first of them creates the tables, which
    MLflow does not expect to happen twice, and SQLite refuses a second writer after five seconds.
    """
    database = sqlite_path(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(database.with_name(f"{database.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
