"""A real MLflow server on loopback, runs as training leaves them, and looks at what arrived."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # MLflow reads it when it is imported

from mlflow import MlflowClient

from ml_core.findings import Finding
from ml_core.runs import RunDir, RunRecord
from ml_core.tracking import ExperimentTracker

CONFIG = {
    "experiment_name": "pcam",
    "seed": 42,
    "data": {"data_path": "/patches", "batch_size": 64},
    "optimizer": {"name": "adamw", "lr": 0.001},
}
REFUSED = "http://127.0.0.1:9"  # the discard port: nobody listens


class MlflowServer:
    """A server that can be killed and started again on the same database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._directory / 'server.db'}"]
        command += ["--artifacts-destination", str(self._directory / "artifacts")]
        with open(self._directory / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                env={
                    **os.environ,
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._is_healthy, "the MLflow server answers", timeout_s=120)

    def start_if_dead(self) -> None:
        if self._process is None:
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def running_server(directory: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def wait_until(is_so: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"waited {timeout_s} s until {what}"
        time.sleep(0.1)


def make_run(
    parent: Path,
    *,
    name: str = "run",
    status: str = "completed",
    num_epochs: int = 2,
    experiment_name: str = "pcam",
    study: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> RunDir:
    """Make a run as training leaves it: 10 steps an epoch, and the files that MLflow gets."""
    run = RunDir.create(parent, name)
    record = RunRecord(experiment_name, 42, "ml-core train pcam_cnn.yaml", status=status)
    record.started_at, record.ended_at = "2026-01-02T03:04:05+00:00", "2026-01-02T04:04:05+00:00"
    record.code = {"commit": "0123abc", "dirty": True}
    record.hardware = {"hostname": "node7"}
    record.data = {"train": {"sha256": {"x": "aa", "y": "bb"}, "num_patches": 100}}
    record.study = study or {}
    record.add_finding(Finding("not-learning", "warning", "AUC 0.5 in all epochs"))
    record.save(run)
    resolved = {**CONFIG, "experiment_name": experiment_name, **(config or {})}
    with ExperimentTracker(experiment_name, resolved, run=run, tensorboard=False) as tracker:
        for epoch in range(1, num_epochs + 1):
            log_epoch(tracker, epoch)
    run.diff_path.write_text("diff --git a/x b/x\n")
    run.metrics_path.write_text('{"roc_auc": 0.9}\n')
    run.report_path.write_text("<html>report</html>")
    run.figures_dir.mkdir()
    (run.figures_dir / "roc.svg").write_text("<svg/>")
    run.predictions_path("valid").parent.mkdir()
    run.predictions_path("valid").write_bytes(b"PAR1")
    return run


def log_epoch(tracker: ExperimentTracker, epoch: int) -> None:
    for step in range(10 * epoch - 9, 10 * epoch + 1):
        tracker.log_step(step, {"loss": 1 / step, "learning_rate": 0.001}, epoch=epoch)
        tracker.log_gradients(step, {"net.0.weight": 1.0}, epoch=epoch)
    tracker.log_metrics(epoch, {"val_loss": 0.5 / epoch, "val_f1": math.nan}, step=10 * epoch)


def set_status(run: RunDir, status: str) -> None:
    record = RunRecord.load(run)
    record.status = status
    record.save(run)


def runs_on_server(uri: str, experiment_name: str) -> list[Any]:
    """Return every MLflow run of an experiment, the oldest first."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def on_server(uri: str, run: RunDir) -> Any:
    """Return the one MLflow run of `run`; fails when there are several."""
    record = RunRecord.load(run)
    (found,) = (
        each
        for each in runs_on_server(uri, record.experiment_name)
        if each.data.tags.get("ml_core.run_id") == record.run_id
    )
    return found


def points(uri: str, mlflow_run_id: str, key: str) -> list[tuple[int, float]]:
    """Return every (step, value) that the server has of `key`, sorted, repeats included."""
    history = MlflowClient(uri).get_metric_history(mlflow_run_id, key)
    return sorted((point.step, point.value) for point in history)


def artifacts_of(uri: str, mlflow_run_id: str) -> set[str]:
    client = MlflowClient(uri)
    found: set[str] = set()
    folders = [""]
    while folders:
        for entry in client.list_artifacts(mlflow_run_id, folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                found.add(entry.path)
    return found


def sync_state(directory: Path) -> dict[str, Any]:
    path = directory / "sync.json"
    return json.loads(path.read_text()) if path.exists() else {}
