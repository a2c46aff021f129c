"""A study on MLflow: a parent run, and the runs of its trials nested under it.

reads   what a `StudyView` holds, and the directories of the trials' runs
writes  the MLflow run tagged with the study's study_id, its trials' runs, and a sync.json in each

Only this makes the parent, one process at a time. A trial that was sent before, by its own syncer,
is put under it here; one that is sent later finds it by the tag `study_id`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_core.errors import RunError, TrackingError
from ml_core.runs import RunDir, utc_now
from ml_core.tracking.describe import as_params, as_tags
from ml_core.tracking.mlflow_run import MlflowRun, places
from ml_core.tracking.mlflow_server import MlflowServer
from ml_core.tracking.mlflow_sync import PARENT_TAG, SyncResult, sync_run
from ml_core.tracking.sync_lock import BeingSentError, only_sender
from ml_core.tracking.sync_state import SyncState, is_up_to_date

logger = logging.getLogger(__name__)

FINISHED = ("complete", "pruned", "failed")
STATES = (*FINISHED, "running", "lost")


@dataclass(frozen=True)
class TrialView:
    """A trial as MLflow is told of it; `run` is None where no run was begun."""

    number: int
    attempt: int  # the last, from 0
    state: str  # running, complete, pruned, failed, lost
    value: float | None
    ended_at: str | None
    params: Mapping[str, Any]
    run: RunDir | None


@dataclass(frozen=True)
class StudyView:
    """A study as MLflow is told of it; `tags` and `files` are sent beside what the rest says."""

    path: Path
    study_id: str
    name: str
    experiment_name: str
    status: str  # a key of MLFLOW_STATUS
    started_at: str
    ended_at: str | None
    maximize: bool
    space: Mapping[str, Any]  # per searched key
    tags: Mapping[str, Any]
    trials: Sequence[TrialView]  # by number
    files: Sequence[Path]  # under `path`

    @property
    def identity(self) -> dict[str, str]:
        return {"study_id": self.study_id, "kind": "study"}


@dataclass(frozen=True)
class StudySyncResult:
    """What one `sync_study` did; the counts are sums over the study and its trials."""

    mlflow_run_id: str
    url: str | None
    trials_sent: int
    sent: int
    already_there: int
    artifacts_sent: int
    left_out: dict[str, str] = field(default_factory=dict)  # per trial's run: why it was not sent


def sync_study(
    study: StudyView, tracking_uri: str, *, lock_wait_s: float = 10.0
) -> StudySyncResult:
    """Send a study and its trials, what MLflow does not have of them; twice changes nothing.

    A trial that its own process is sending, or whose run is damaged, is left out and named. Raises
    TrackingError when the server is not reached or refuses, RunError when nothing can be noted in
    the study's directory.
    """
    with only_sender(study.path, lock_wait_s):
        state = SyncState.load(study.path, tracking_uri)
        state.complete = False
        try:
            result = _send(study, tracking_uri, state)
        except (TrackingError, RunError) as error:
            state.error = str(error)
            state.save(study.path)
            raise
        state.complete, state.sent_at, state.error = not result.left_out, utc_now(), None
        state.save(study.path)
    return result


def _send(study: StudyView, uri: str, state: SyncState) -> StudySyncResult:
    server = MlflowServer(uri, study.path)
    parent = MlflowRun(
        server,
        study.experiment_name,
        study.identity,
        name=study.name,
        started_at=study.started_at,
    )
    if parent.id != state.mlflow_run_id:  # another server, or its records were wiped
        state.artifacts = {}
    state.mlflow_run_id, state.url = parent.id, parent.url
    params = as_params({"space": study.space}, "config.yaml")
    parent.send_description(params, as_tags(_tags(study), "study.json"), withdrawable="best.")
    sent, left_out = _send_trials(study, server)
    _nest_all(study, server, parent.id, {each.mlflow_run_id for each in sent})
    parent.send_values(_progress(study), "step")
    state.artifacts = parent.send_files(places(study.path, study.files), state.artifacts)
    parent.send_status(study.status, study.ended_at)
    return StudySyncResult(
        parent.id,
        parent.url,
        trials_sent=len(sent),
        sent=parent.sent + sum(each.sent for each in sent),
        already_there=parent.already_there + sum(each.already_there for each in sent),
        artifacts_sent=parent.artifacts_sent + sum(each.artifacts_sent for each in sent),
        left_out=left_out,
    )


def _send_trials(study: StudyView, server: MlflowServer) -> tuple[list[SyncResult], dict[str, str]]:
    """Send the trials that changed since they were sent; return what was done, and what was not."""
    there = server.find_runs(study.experiment_name, {"study_id": study.study_id, "kind": "trial"})
    states_there = {run.info.run_id: run.data.tags.get("state") for run in there}
    sent: list[SyncResult] = []
    left_out: dict[str, str] = {}
    for trial in study.trials:
        if trial.run is None or not trial.run.record_path.is_file():
            continue  # killed before it had a run
        ids = [run_id for run_id, state in states_there.items() if state == trial.state]
        if is_up_to_date(trial.run, server.uri, ids):
            continue
        try:
            sent.append(
                sync_run(
                    trial.run,
                    server.uri,
                    lock_wait_s=0,
                    trial_state=trial.state,
                    part_of=study.path,
                )
            )
        except (BeingSentError, RunError) as error:
            left_out[str(trial.run.path)] = str(error)
            logger.warning("trial %d is left out: %s", trial.number, error)
    return sent, left_out


def _nest_all(study: StudyView, server: MlflowServer, parent_id: str, sent: set[str]) -> None:
    """Put under the study what is not, and end the attempts that another one has replaced.

    A retry that had to begin anew is a run of its own; that of the killed attempt would say
    `running` for ever.
    """
    current = sent | {
        str(SyncState.load(trial.run.path, server.uri).mlflow_run_id)
        for trial in study.trials
        if trial.run is not None
    }
    attempts = {str(trial.number): trial.attempt for trial in study.trials}
    trials = server.find_runs(study.experiment_name, {"study_id": study.study_id, "kind": "trial"})
    for run in trials:
        if run.data.tags.get(PARENT_TAG) != parent_id:
            server.call(server.client.set_tag, run.info.run_id, PARENT_TAG, parent_id)
        tags = run.data.tags
        is_replaced = int(tags.get("attempt", 0)) < attempts.get(tags.get("trial"), 0)
        if is_replaced and run.info.run_id not in current and run.info.status == "RUNNING":
            server.call(server.client.set_tag, run.info.run_id, "state", "lost")
            server.call(server.client.set_terminated, run.info.run_id, "KILLED")


def _tags(study: StudyView) -> dict[str, Any]:
    best = _best(study, study.trials)
    found = {} if best is None else {f"best.{key}": value for key, value in best.params.items()}
    return {
        "status": study.status,
        "best.trial": None if best is None else best.number,
        **{f"trials.{each}": sum(t.state == each for t in study.trials) for each in STATES},
        **found,
        **study.tags,
    }


def _progress(study: StudyView) -> Iterator[dict[str, Any]]:
    """Yield the parent's values as log lines.

    A value at a step is for ever in MLflow, so only what can no longer change is told: the history
    up to the first trial that has not ended (by its number), and the counts by how many have.
    """
    history: list[TrialView] = []
    for trial in study.trials:
        if trial.state not in FINISHED:
            break
        history.append(trial)
        best = _best(study, history)
        yield {
            "step": trial.number,
            "time": trial.ended_at or study.started_at,
            **({} if trial.value is None else {"trial_value": trial.value}),
            **({} if best is None else {"best_so_far": best.value}),
        }
    finished = [trial for trial in study.trials if trial.state in FINISHED]
    if finished:
        best = _best(study, finished)
        yield {
            "step": len(finished),
            "time": max(trial.ended_at or study.started_at for trial in finished),
            **({} if best is None else {"best_value": best.value}),
            **{f"num_{state}": sum(t.state == state for t in finished) for state in FINISHED},
        }


def _best(study: StudyView, trials: Sequence[TrialView]) -> TrialView | None:
    """Return the complete trial with the best value, of equal ones the first."""
    sign = 1 if study.maximize else -1
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return max(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)
