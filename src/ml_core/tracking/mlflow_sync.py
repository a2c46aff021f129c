"""Feeds MLflow from the files of a run: once, or while the run is being written.

    python -m ml_core.tracking.mlflow_sync --run RUN --uri URI [--follow]

reads   config.yaml run.json metrics.jsonl steps.jsonl, and the files listed by artifact_paths
writes  the MLflow run tagged with the run's run_id, and sync.json in the run's directory

The logs are the truth. A value that the server already has, by (run_id, key, step), is not sent
again, so a syncer may be killed, repeated or replaced at any point.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ml_core.errors import MLCoreError, RunError, TrackingError
from ml_core.runs import RunDir, RunRecord, utc_now
from ml_core.tracking.log_file import LogReader, LogReplacedError
from ml_core.tracking.mlflow_run import MlflowRun
from ml_core.tracking.sync_state import SyncState

logger = logging.getLogger(__name__)

POLL_S = 1.0
LONGEST_PAUSE_S = 30.0  # between attempts while the server is dead
GIVE_UP_AFTER_S = 3600.0  # of a server that is dead all along
LAST_PASS_S = 60.0  # for what is left when the run has ended or its process is gone


@dataclass(frozen=True)
class SyncResult:
    """What one `sync_run` did; counts of values, one per (key, step)."""

    mlflow_run_id: str
    url: str | None  # of the run's page; None for a database file
    sent: int
    already_there: int
    skipped: int  # not finite
    artifacts_sent: int


def sync_run(run: RunDir, tracking_uri: str, *, lock_wait_s: float = 10.0) -> SyncResult:
    """Send everything in `run` that MLflow does not have; doing it twice changes nothing.

    `tracking_uri` is a server's `http(s)://...` or `sqlite:///PATH` (created on demand, artifacts
    beside it). Raises RunError when `run` is missing or damaged, and TrackingError when the server
    is not reached or refuses, or another process of this machine is sending the same run.
    """
    record = RunRecord.load(run)
    with _only_syncer(run, lock_wait_s):
        feed = _Feed(run, tracking_uri)
        feed.send_news(with_artifacts=True)
        if record.status != "running":  # else it may be alive or killed: not known from here
            feed.send_status(record.status, record.ended_at)
        feed.finish()
    return feed.result()


def follow_run(run: RunDir, tracking_uri: str, parent_pid: int) -> bool:
    """Send `run` while it is written; return, when it has ended, whether everything was sent.

    It has ended when run.json has a final status, or when this process is no longer a child of
    `parent_pid`: the training process was killed. A dead server is tried again until then, but for
    an hour at most.
    """
    with _only_syncer(run, wait_s=LAST_PASS_S):
        feed = _Feed(run, tracking_uri)
        is_first, pause_s, last_success = True, POLL_S, time.monotonic()
        while True:
            version = run.record_path.stat().st_mtime_ns
            is_orphan = os.getppid() != parent_pid
            record = RunRecord.load(run)  # before the logs: what precedes a final status is sent
            is_last = is_orphan or record.status != "running"
            if is_last:
                signal.signal(signal.SIGALRM, _raise_timeout)
                signal.setitimer(signal.ITIMER_REAL, LAST_PASS_S)
            try:
                feed.send_news(with_artifacts=is_first or is_last)
                if is_orphan and record.status == "running":
                    feed.send_status("interrupted", utc_now())
                else:
                    feed.send_status(record.status, record.ended_at)
            except TrackingError as error:
                logger.warning("%s", error)
                if is_last or time.monotonic() - last_success > GIVE_UP_AFTER_S:
                    return False
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                is_first, pause_s, last_success = False, POLL_S, time.monotonic()
                if is_last:
                    feed.finish()
                    return True
            wait_for_news(pause_s, run, version, parent_pid)


class _Feed:
    """The way from a run's logs to MLflow: connects when needed, and keeps sync.json."""

    def __init__(self, run: RunDir, uri: str) -> None:
        self.run = run
        self.uri = uri
        self.state = SyncState.load(run, uri)
        self.state.complete = False
        self.state.sent = self.state.already_there = self.state.skipped = 0
        self._server: MlflowRun | None = None
        self._metrics = LogReader(run.metrics_log_path)
        self._steps = LogReader(run.steps_log_path)

    def send_news(self, *, with_artifacts: bool) -> None:
        """Send what was added since the last time; raises TrackingError, RunError."""
        try:
            server = self._send_values()
            if with_artifacts:
                self.state.artifacts = server.send_artifacts(self.state.artifacts)
        except MLCoreError as error:
            self._failed(error)
            raise
        self.state.sent = server.sent
        self.state.already_there = server.already_there
        self.state.skipped = server.skipped
        self.state.lines = {log.path.name: log.num_lines for log in (self._metrics, self._steps)}
        self.state.sent_at, self.state.error = utc_now(), None
        self.state.save(self.run)

    def send_status(self, status: str, ended_at: str | None) -> None:
        try:
            self._connected().send_status(status, ended_at)
        except TrackingError as error:
            self._failed(error)
            raise

    def finish(self) -> None:
        """Write down that nothing was left behind."""
        self.state.complete = True
        self.state.save(self.run)

    def result(self) -> SyncResult:
        server = self._connected()
        return SyncResult(
            server.id,
            server.url,
            server.sent,
            server.already_there,
            server.skipped,
            server.artifacts_sent,
        )

    def _send_values(self) -> MlflowRun:
        while True:
            server = self._connected()
            try:
                server.send_description()
                server.send_values(self._metrics, "epoch", prefix="")
                server.send_values(self._steps, "step", prefix="step/")
                return server
            except LogReplacedError:
                self._server = None  # compare the new log with what the server has by now

    def _connected(self) -> MlflowRun:
        if self._server is None:
            server = MlflowRun(self.run, self.uri)
            if server.id != self.state.mlflow_run_id:  # another server, or its records were wiped
                self.state.artifacts = {}
            self.state.mlflow_run_id, self.state.url = server.id, server.url
            self._metrics = LogReader(self.run.metrics_log_path)
            self._steps = LogReader(self.run.steps_log_path)
            self._server = server
        return self._server

    def _failed(self, error: MLCoreError) -> None:
        """Forget the connection: whether the last batch arrived is a question for the next one."""
        self._server = None
        self.state.error = str(error)
        self.state.save(self.run)


@contextmanager
def _only_syncer(run: RunDir, wait_s: float) -> Iterator[None]:
    """Keep other syncers of this machine away from `run`; two at once could send a value twice."""
    deadline = time.monotonic() + wait_s
    try:
        lock = open(run.path / ".sync.lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise RunError(
            f"cannot write in {run.path}: {error.strerror}. What was sent is noted there: "
            "send the run as a user who may write, or send a copy of it."
        ) from error
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise TrackingError(
                        f"{run.path} is being sent to MLflow by another process. "
                        "Wait until it is done (sync.json says `complete`), then try again."
                    ) from error
                time.sleep(0.2)
        yield


def wait_for_news(seconds: float, run: RunDir, version: int, parent_pid: int) -> None:
    """Sleep `seconds`, or less: until run.json is newer than `version`, or the parent is gone.

    `version` is the file's st_mtime_ns before it was last read.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.getppid() != parent_pid or run.record_path.stat().st_mtime_ns != version:
            return
        time.sleep(0.2)


def _raise_timeout(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {LAST_PASS_S:g} s")


def main() -> int:
    """Run one syncer; 0 everything sent, 2 something is left behind (sync.json says why)."""
    parser = argparse.ArgumentParser(description="Send a run to MLflow.")
    parser.add_argument("--run", required=True, type=Path, help="the run's directory")
    parser.add_argument("--uri", default=os.environ.get("MLFLOW_TRACKING_URI"))
    parser.add_argument("--follow", action="store_true", help="until the run has ended")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="whose end is the run's")
    args = parser.parse_args()
    if not args.uri:
        parser.error("--uri (or MLFLOW_TRACKING_URI) must name the MLflow server")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    try:
        run = RunDir.open(args.run)
        if not args.follow:
            print(sync_run(run, args.uri))
            return 0
        # Slurm sends SIGTERM to all processes of a job that runs out of time. Training then still
        # saves and logs; the syncer's own end is the end of training.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.nice(10)
        return 0 if follow_run(run, args.uri, args.parent) else 2
    except MLCoreError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
