"""How a search appears on a real MLflow server: a study, and its trials nested under it."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow_server import (
    REFUSED,
    MlflowServer,
    artifacts_of,
    make_run,
    on_server,
    points,
    running_server,
    runs_on_server,
    set_status,
    sync_state,
)

from ml_core.errors import ConfigError, RunError, TrackingError
from ml_core.pipeline.syncing.mlflow_views import view_study
from ml_core.pipeline.track_sync import track_sync
from ml_core.runs import RunDir, write_json
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.tracking import mlflow_server as connection
from ml_core.tracking.mlflow_study import sync_study
from ml_core.tracking.mlflow_sync import sync_run

SPACE = {
    "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "data.batch_size": {"choices": [32, 64]},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with running_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def make_study(parent: Path, *, status: str = "completed") -> StudyDir:
    """Make a study of its own experiment: the name of `parent`, as tests share a server."""
    study = StudyDir.create(parent, "study-20260102-030405")
    record = StudyRecord(
        name=study.name,
        experiment_name=parent.name,
        command="ml-core tune pcam_cnn_search.yaml",
        metric="val_roc_auc",
        direction="maximize",
        num_trials=4,
        sampler={"name": "tpe", "seed": 0},
        pruner={"name": "asha", "min_epochs": 1},
        space=SPACE,
        status=status,
        started_at="2026-01-02T03:04:05+00:00",
        ended_at=None if status == "running" else "2026-01-02T05:04:05+00:00",
    )
    record.save(study)
    study.config_path.write_text(yaml.safe_dump({"experiment_name": parent.name}))
    return study


def add_trial(
    study: StudyDir, number: int, state: str, value: float | None = None, *, attempt: int = 0
) -> RunDir:
    """Add an attempt as its process leaves it; a `lost` one was killed and given up by another."""
    folder = study.attempt(number, attempt)
    folder.path.mkdir()
    params = {"optimizer.lr": 0.001 * (number + 1), "data.batch_size": 32}
    write_json(
        folder.claim_path,
        {"params": params, "claimed_at": "2026-01-02T03:04:05+00:00", "worker": {"host": "n"}},
    )
    folder.heartbeat_path.touch()
    if state == "lost":
        write_json(folder.abandoned_path, {})
    elif state != "running":
        end_trial(study, number, state, value, attempt=attempt)
    record = StudyRecord.load(study)
    statuses = {"complete": "completed", "pruned": "pruned", "failed": "failed"}
    return make_run(
        folder.path,
        status=statuses.get(state, "running"),
        num_epochs=1,
        experiment_name=record.experiment_name,
        study=record.trial_of(number, attempt, params),
    )


def end_trial(
    study: StudyDir, number: int, state: str, value: float | None, *, attempt: int = 0
) -> None:
    event = {"event": "end", "state": state, "value": value, "time": "2026-01-02T03:30:00+00:00"}
    study.attempt(number, attempt).journal_path.write_text(json.dumps(event) + "\n")


def make_whole_study(parent: Path) -> StudyDir:
    """A search that is over: one trial complete, one pruned, one failed, and one better one."""
    study = make_study(parent)
    add_trial(study, 0, "complete", 0.8)
    add_trial(study, 1, "pruned", 0.6)
    add_trial(study, 2, "failed")
    add_trial(study, 3, "complete", 0.9)
    study.table_path.write_text("number,state\n")
    study.page_path.write_text("<html>study</html>")
    study.figures_dir.mkdir()
    (study.figures_dir / "history.png").write_bytes(b"\x89PNG")
    return study


def parent_of(uri: str, study: StudyDir) -> Any:
    """Return the one MLflow run of `study`; fails when there are several."""
    record = StudyRecord.load(study)
    (found,) = (
        run
        for run in runs_on_server(uri, record.experiment_name)
        if run.data.tags.get("kind") == "study"
    )
    return found


def everything(uri: str, experiment_name: str) -> list[dict[str, Any]]:
    return [run.to_dictionary() for run in runs_on_server(uri, experiment_name)]


def test_a_study_arrives_with_its_trials_under_it(server: MlflowServer, tmp_path: Path) -> None:
    study = make_whole_study(tmp_path)
    (result,) = track_sync([study.path], server.uri).values()
    parent = parent_of(server.uri, study)
    runs = runs_on_server(server.uri, tmp_path.name)
    trials = {
        run.info.run_name: (
            run.data.tags["state"], run.info.status, run.data.tags["trial"],
            run.data.tags["attempt"],
        )
        for run in runs
        if run.data.tags["kind"] == "trial"
    }  # fmt: skip

    assert result["mlflow_run_id"] == parent.info.run_id
    assert (result["trials_sent"], result["left_out"]) == (4, {})
    assert trials == {
        "trial-0000": ("complete", "FINISHED", "0", "0"),
        "trial-0001": ("pruned", "FINISHED", "1", "0"),
        "trial-0002": ("failed", "FAILED", "2", "0"),
        "trial-0003": ("complete", "FINISHED", "3", "0"),
    }
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs if run is not parent} - {
        None
    } == {parent.info.run_id}
    assert len(runs) == 5
    assert parent.info.run_name == study.name
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time - parent.info.start_time == 7_200_000
    tags = parent.data.tags
    assert tags["study_id"] == StudyRecord.load(study).study_id
    assert (tags["metric"], tags["direction"]) == ("val_roc_auc", "maximize")
    assert json.loads(tags["sampler"])["name"] == "tpe"
    assert json.loads(tags["pruner"])["name"] == "asha"
    assert (tags["best.trial"], tags["best.optimizer.lr"]) == ("3", "0.004")
    assert parent.data.params["space.optimizer.lr.low"] == "0.0001"
    assert parent.data.params["space.data.batch_size.choices"] == "[32, 64]"
    assert parent.data.metrics["best_value"] == 0.9
    assert [parent.data.metrics[f"num_{state}"] for state in ("complete", "pruned", "failed")] == [
        2, 1, 1,
    ]  # fmt: skip
    best = points(server.uri, parent.info.run_id, "best_so_far")
    assert best == [(0, 0.8), (1, 0.8), (2, 0.8), (3, 0.9)]
    assert points(server.uri, parent.info.run_id, "trial_value") == [(0, 0.8), (1, 0.6), (3, 0.9)]
    assert artifacts_of(server.uri, parent.info.run_id) == {
        "study.json", "config.yaml", "trials.csv", "study.html", "figures/history.png",
    }  # fmt: skip


def test_sending_a_study_twice_changes_nothing(server: MlflowServer, tmp_path: Path) -> None:
    study = make_whole_study(tmp_path)
    lost = add_trial(study, 4, "lost")
    sync_study(view_study(study), server.uri)
    before = everything(server.uri, tmp_path.name)
    again = sync_study(view_study(study), server.uri)
    assert (again.trials_sent, again.sent, again.artifacts_sent) == (0, 0, 0)
    sync_run(lost, server.uri, trial_state="lost")  # looked at anew, though nothing changed
    assert everything(server.uri, tmp_path.name) == before
    assert on_server(server.uri, lost).info.status == "KILLED"
    assert on_server(server.uri, lost).data.tags["state"] == "lost"


def test_only_the_trial_that_changed_is_sent_again(server: MlflowServer, tmp_path: Path) -> None:
    study = make_whole_study(tmp_path)
    sync_study(view_study(study), server.uri)
    study.attempt(1).run.report_path.write_text("<html>a better report</html>")
    again = sync_study(view_study(study), server.uri)
    assert (again.trials_sent, again.artifacts_sent) == (1, 1)


def test_trials_end_under_their_study_whichever_is_sent_first(
    server: MlflowServer, tmp_path: Path
) -> None:
    study = make_study(tmp_path, status="running")
    early = add_trial(study, 0, "complete", 0.8)
    sync_run(early, server.uri)
    assert "mlflow.parentRunId" not in on_server(server.uri, early).data.tags
    sync_study(view_study(study), server.uri)
    late = add_trial(study, 1, "running")
    sync_run(late, server.uri)  # by the syncer of its own training
    parent = parent_of(server.uri, study)
    for run in (early, late):
        assert on_server(server.uri, run).data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "RUNNING"


def test_a_study_that_goes_on_adds_to_what_was_told_of_it(
    server: MlflowServer, tmp_path: Path
) -> None:
    study = make_study(tmp_path, status="running")
    add_trial(study, 0, "complete", 0.8)
    slow = add_trial(study, 1, "running")
    add_trial(study, 2, "complete", 0.7)
    sync_study(view_study(study), server.uri)
    parent = parent_of(server.uri, study)
    # trial 1 may still be the best, so what is best after trial 2 is not known
    assert points(server.uri, parent.info.run_id, "best_so_far") == [(0, 0.8)]
    assert points(server.uri, parent.info.run_id, "best_value") == [(2, 0.8)]
    assert parent.data.tags["trials.running"] == "1"

    end_trial(study, 1, "complete", 0.9)
    set_status(slow, "completed")
    record = StudyRecord.load(study)
    record.status, record.ended_at = "completed", "2026-01-02T05:04:05+00:00"
    record.save(study)
    sync_study(view_study(study), server.uri)
    parent = parent_of(server.uri, study)
    history = points(server.uri, parent.info.run_id, "best_so_far")
    assert history == [(0, 0.8), (1, 0.9), (2, 0.9)]
    assert points(server.uri, parent.info.run_id, "best_value") == [(2, 0.8), (3, 0.9)]
    assert parent.data.metrics["best_value"] == 0.9
    assert parent.data.tags["trials.running"] == "0"
    assert on_server(server.uri, slow).info.status == "FINISHED"
    assert parent.info.status == "FINISHED"


def test_of_a_trial_that_was_tried_again_the_killed_attempt_is_ended(
    server: MlflowServer, tmp_path: Path
) -> None:
    study = make_study(tmp_path)
    killed = add_trial(study, 0, "lost")
    sync_run(killed, server.uri)  # as its own syncer did, before both were killed
    assert on_server(server.uri, killed).info.status == "RUNNING"
    again = add_trial(study, 0, "complete", 0.8, attempt=1)
    sync_study(view_study(study), server.uri)
    old, new = on_server(server.uri, killed), on_server(server.uri, again)
    assert (old.info.status, old.data.tags["state"]) == ("KILLED", "lost")
    assert (new.info.status, new.data.tags["attempt"]) == ("FINISHED", "1")
    assert parent_of(server.uri, study).data.metrics["num_complete"] == 1


def test_a_trial_that_went_on_from_its_killed_attempt_is_one_run(
    server: MlflowServer, tmp_path: Path
) -> None:
    study = make_study(tmp_path)
    killed = add_trial(study, 0, "lost")
    sync_run(killed, server.uri)
    again = add_trial(study, 0, "complete", 0.8, attempt=1)
    shutil.rmtree(again.path)
    shutil.copytree(killed.path, again.path)  # as the search does, with its run_id
    set_status(again, "completed")
    sync_study(view_study(study), server.uri)
    assert len(runs_on_server(server.uri, tmp_path.name)) == 2
    assert on_server(server.uri, again).info.status == "FINISHED"
    assert on_server(server.uri, again).data.tags["state"] == "complete"


class KilledError(BaseException):
    """Stands for SIGKILL: nothing in the library may catch it."""


def test_a_study_whose_sender_is_killed_anywhere_arrives_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    add_trial(study, 0, "complete", 0.8)
    add_trial(study, 1, "pruned", 0.6)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    call = connection.MlflowServer.call
    calls_left = 0

    def call_until_killed(self: Any, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        nonlocal calls_left
        answer = call(self, function, *args, **more)
        calls_left -= 1
        if calls_left == 0:  # MLflow has done it, and nobody learns that
            raise KilledError
        return answer

    monkeypatch.setattr(connection.MlflowServer, "call", call_until_killed)
    num_kills = 0
    while True:
        calls_left = 2 + 3 * num_kills
        try:
            sync_study(view_study(study), uri)
            break
        except KilledError:
            num_kills += 1
    assert num_kills > 5
    runs = runs_on_server(uri, tmp_path.name)
    assert sorted(run.info.run_name for run in runs) == [study.name, "trial-0000", "trial-0001"]
    parent = parent_of(uri, study)
    assert points(uri, parent.info.run_id, "best_so_far") == [(0, 0.8), (1, 0.8)]
    for number in (0, 1):
        run = on_server(uri, study.attempt(number).run)
        assert points(uri, run.info.run_id, "step/loss") == [(s, 1 / s) for s in range(1, 11)]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_damaged_trial_is_named_and_the_others_are_sent(
    server: MlflowServer, tmp_path: Path
) -> None:
    study = make_whole_study(tmp_path)
    study.attempt(1).run.record_path.write_text("{")
    result = sync_study(view_study(study), server.uri)
    ((path, reason),) = result.left_out.items()
    assert path == str(study.attempt(1).run.path)
    assert "cannot be read" in reason
    assert result.trials_sent == 3
    assert sync_state(study.path)["complete"] is False


def test_a_trial_that_its_own_process_is_sending_is_left_to_it(
    server: MlflowServer, tmp_path: Path
) -> None:
    study = make_study(tmp_path, status="running")
    run = add_trial(study, 0, "running")
    with open(run.path / ".sync.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = sync_study(view_study(study), server.uri)
    assert "by another process" in result.left_out[str(run.path)]
    with open(study.path / ".sync.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrackingError, match="by another process"):
            sync_study(view_study(study), REFUSED, lock_wait_s=0.3)


def test_a_dead_server_is_reported_with_the_command_that_repeats_it(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with pytest.raises(TrackingError, match=f"connection refused.*track sync {study.path}"):
        sync_study(view_study(study), REFUSED)
    assert "refused" in sync_state(study.path)["error"]


def test_what_cannot_be_sent_says_what_could_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match=r"no run .* no study .* no champion\.json"):
        track_sync([tmp_path], REFUSED)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = make_run(tmp_path)
    run.config_path.write_text("experiment_name: pcam\ndata: {data_path: /patches}\n")
    with pytest.raises(ConfigError, match="names no MLflow server"):
        track_sync([run.path])
