"""Feeds MLflow from the files of a run: once, or while the run is being written.

    python -m ml_core.tracking.mlflow_sync --run RUN --uri URI [--follow]

reads   config.yaml run.json metrics.jsonl steps.jsonl, and the files listed by artifact_paths
writes  the MLflow run tagged with the run's run_id, and sync.json in the run's directory

The logs are the truth. A value that the server already has, by (run_id, key, step), is not sent
again, so a syncer may be killed, repeated or replaced at any point.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ml_core.errors import MLCoreError, TrackingError
from ml_core.runs import RunDir, RunRecord, utc_now
from ml_core.tracking.describe import artifact_paths, describe_name, describe_params, describe_tags
from ml_core.tracking.log_file import LogReader, LogReplacedError
from ml_core.tracking.mlflow_run import MlflowRun, places
from ml_core.tracking.mlflow_server import MlflowServer
from ml_core.tracking.sync_lock import only_sender
from ml_core.tracking.sync_state import SyncState, look_at

logger = logging.getLogger(__name__)

RUN_ID_TAG = "ml_core.run_id"
PARENT_TAG = "mlflow.parentRunId"  # what MLflow's pages nest runs by
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


def sync_run(
    run: RunDir,
    tracking_uri: str,
    *,
    lock_wait_s: float = 10.0,
    trial_state: str | None = None,
    part_of: Path | None = None,
) -> SyncResult:
    """Send everything in `run` that MLflow does not have; doing it twice changes nothing.

    `tracking_uri` is a server's `http(s)://...` or `sqlite:///PATH` (created on demand, artifacts
    beside it). `trial_state` is what its study knows of it: a trial that was killed says `running`
    for ever; `part_of` is the study or champion.json that is being sent, and named in an error.
    Raises RunError when `run` is missing or damaged, and TrackingError when the server
    is not reached or refuses; BeingSentError when another process is sending the same run.
    """
    record = RunRecord.load(run)
    with only_sender(run.path, lock_wait_s):
        feed = _Feed(run, tracking_uri, trial_state, part_of)
        feed.send_news(with_artifacts=True)
        if record.status != "running":
            feed.send_status(record.status, record.ended_at)
        elif trial_state in ("lost", "failed"):
            feed.send_status("interrupted", None)
        # else it may be alive or killed: not known from here
        feed.finish()
    return feed.result()


def follow_run(run: RunDir, tracking_uri: str, parent_pid: int) -> bool:
    """Send `run` while it is written; return, when it has ended, whether everything was sent.

    It has ended when run.json has a final status, or when this process is no longer a child of
    `parent_pid`: the training process was killed. A dead server is tried again until then, but for
    an hour at most.
    """
    with only_sender(run.path, wait_s=LAST_PASS_S):
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

    def __init__(
        self,
        run: RunDir,
        uri: str,
        trial_state: str | None = None,
        part_of: Path | None = None,
    ) -> None:
        self.run = run
        self.uri = uri
        self.trial_state = trial_state
        self.asked_for = part_of or run.path
        self.state = SyncState.load(run.path, uri)
        self.state.complete = False
        self.state.sent = self.state.already_there = self.state.skipped = 0
        self._seen: dict[str, list[int]] = {}
        self._server: MlflowRun | None = None
        self._metrics = LogReader(run.metrics_log_path)
        self._steps = LogReader(run.steps_log_path)

    def send_news(self, *, with_artifacts: bool) -> None:
        """Send what was added since the last time; raises TrackingError, RunError."""
        self._seen = look_at(self.run)  # before it is read: what changes meanwhile is sent again
        try:
            server = self._send_values()
            if with_artifacts:
                files = places(self.run.path, artifact_paths(self.run))
                self.state.artifacts = server.send_files(files, self.state.artifacts)
                self._nest(server)
        except MLCoreError as error:
            self._failed(error)
            raise
        self.state.sent = server.sent
        self.state.already_there = server.already_there
        self.state.skipped = server.skipped
        self.state.lines = {log.path.name: log.num_lines for log in (self._metrics, self._steps)}
        self.state.sent_at, self.state.error = utc_now(), None
        self.state.save(self.run.path)

    def send_status(self, status: str, ended_at: str | None) -> None:
        try:
            self._connected().send_status(status, ended_at)
        except TrackingError as error:
            self._failed(error)
            raise

    def finish(self) -> None:
        """Write down that nothing was left behind."""
        self.state.complete, self.state.seen = True, self._seen
        self.state.save(self.run.path)

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
                self._describe(server)
                server.send_values(self._metrics, "epoch")
                server.send_values(self._steps, "step", prefix="step/")
                return server
            except LogReplacedError:
                self._server = None  # compare the new log with what the server has by now

    def _describe(self, server: MlflowRun) -> None:
        tags = describe_tags(RunRecord.load(self.run))
        if self.trial_state is not None:
            tags["state"] = self.trial_state
        server.send_description(describe_params(self.run), tags, withdrawable="finding.")

    def _nest(self, server: MlflowRun) -> None:
        """Put a trial under its study, if the study is there: only its own syncer makes that."""
        study_id = RunRecord.load(self.run).study.get("study_id")
        if study_id is None or PARENT_TAG in server.tags:
            return
        studies = server.server.find_runs(
            RunRecord.load(self.run).experiment_name, {"study_id": study_id, "kind": "study"}
        )
        if studies:
            server.send_description({}, {PARENT_TAG: studies[0].info.run_id})

    def _connected(self) -> MlflowRun:
        if self._server is None:
            record = RunRecord.load(self.run)
            server = MlflowRun(
                MlflowServer(self.uri, self.asked_for),
                record.experiment_name,
                {RUN_ID_TAG: record.run_id},
                name=describe_name(self.run, record),
                started_at=record.started_at,
            )
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
        self.state.save(self.run.path)


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
        # Slurm sends these to all processes of a job that runs out of time. Training then still
        # saves and logs; the syncer's own end is the end of training.
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        os.nice(10)
        return 0 if follow_run(run, args.uri, args.parent) else 2
    except MLCoreError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
