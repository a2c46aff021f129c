"""One run on an MLflow server: what it has, and sending it only what it has not."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.tracking.describe import milliseconds, safe_key
from ml_core.tracking.mlflow_server import Metric, MlflowServer, Param, RunTag
from ml_core.tracking.tracker import NOT_VALUES

MLFLOW_STATUS = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    # A pruned trial ended as it was meant to. MLflow shows KILLED as it shows FAILED, in red: half
    # of a good study would look broken. The tag `state` tells it from a complete one.
    "pruned": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
    "diverged": "FAILED",
}
MAX_METRICS_PER_BATCH = 1000  # mlflow/utils/validation.py


class MlflowRun:
    """The MLflow run with the tags `identity`, found or created on `server`.

    Every method sends only what the server does not have. Raises TrackingError when the server
    cannot be reached or refuses; after that the object is spent, and a new one begins by asking the
    server what it has. Raises RunError when a log is damaged.
    """

    def __init__(
        self,
        server: MlflowServer,
        experiment_name: str,
        identity: Mapping[str, str],
        *,
        name: str,
        started_at: str,
    ) -> None:
        self.server = server
        self.sent = 0
        self.already_there = 0
        self.artifacts_sent = 0
        self.skipped = 0  # values that are not finite: MLflow's back ends disagree about them
        found = server.find_or_create_run(
            experiment_name, identity, name=name, start_time=milliseconds(started_at)
        )
        self.id: str = found.info.run_id
        self.artifact_uri: str = found.info.artifact_uri
        self.url = server.page_url(found.info.experiment_id, self.id)
        self.tags: dict[str, str] = dict(found.data.tags)
        self._client = server.client
        self._call = server.call
        self._status: tuple[str, int | None] = (found.info.status, found.info.end_time)
        self._params: dict[str, str] = dict(found.data.params)
        self._keys_there = set(found.data.metrics)
        self._steps_there: dict[str, set[int]] = {}

    def send_description(
        self, params: Mapping[str, str], tags: Mapping[str, str], *, withdrawable: str | None = None
    ) -> None:
        """Send parameters and tags; tags that begin with `withdrawable` and are not given go.

        A parameter is for ever in MLflow: where a resumed run has another value than the one that
        was sent first, the new one becomes the tag `changed.<parameter>`.
        """
        changed = {k: v for k, v in params.items() if self._params.get(k, v) != v}
        tags = {**tags, **{safe_key(f"changed.{key}"): value for key, value in changed.items()}}
        new_params = {key: value for key, value in params.items() if key not in self._params}
        new_tags = {key: value for key, value in tags.items() if self.tags.get(key) != value}
        if new_params or new_tags:
            self._call(
                self._client.log_batch,
                self.id,
                params=[Param(key, value) for key, value in new_params.items()],
                tags=[RunTag(key, value) for key, value in new_tags.items()],
            )
        self._params |= new_params
        self.tags |= new_tags
        if withdrawable is not None:
            stale = [key for key in self.tags if key.startswith(withdrawable) and key not in tags]
            for key in stale:
                self._call(self._client.delete_tag, self.id, key)
                del self.tags[key]

    def send_values(self, log: Iterable[Mapping[str, Any]], x_axis: str, prefix: str = "") -> None:
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

    def send_files(self, files: Mapping[str, Path], known: Mapping[str, str]) -> dict[str, str]:
        """Send the files whose SHA-256 is not the one in `known`; return all, by their place.

        A file's place (`figures/roc.svg`) ends in its own name.
        """
        hashes = dict(known)
        for place, path in files.items():
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if hashes.get(place) != digest:
                folder = place.rpartition("/")[0] or None
                self._call(self._client.log_artifact, self.id, str(path), folder)
                hashes[place] = digest
                self.artifacts_sent += 1
        return hashes

    def send_status(self, status: str, ended_at: str | None) -> None:
        """Set MLflow's status from ours (a key of MLFLOW_STATUS) and the time the run ended."""
        wanted = (
            MLFLOW_STATUS.get(status, "FAILED"),
            milliseconds(ended_at) if ended_at else None,
        )
        if wanted[0] == self._status[0] and wanted[1] in (None, self._status[1]):
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


def places(root: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Return `paths` by where they lie under `root`, as `send_files` takes them."""
    return {path.relative_to(root).as_posix(): path for path in paths}


def _metrics(record: Mapping[str, Any], x_axis: str, prefix: str) -> Iterator[Metric]:
    try:
        timestamp, position = milliseconds(record["time"]), int(record[x_axis])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"a log line has no valid time or {x_axis}: {json.dumps(record)}. Remove that line."
        ) from error
    for key, value in record.items():
        if key not in NOT_VALUES and not isinstance(value, str):
            number = math.nan if value is None else float(value)
            yield Metric(safe_key(prefix + key), number, timestamp, position)
