"""How a champion appears in the model registry of a real MLflow server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_champion import make_champion, write_weights
from mlflow import MlflowClient
from mlflow_server import (
    REFUSED,
    MlflowServer,
    artifacts_of,
    make_run,
    on_server,
    running_server,
    runs_on_server,
)
from safetensors.numpy import load_file

from ml_core.errors import RunError, TrackingError
from ml_core.pipeline.syncing.mlflow_views import view_champion
from ml_core.pipeline.track_sync import track_sync
from ml_core.runs import RunDir, write_json
from ml_core.selection.champion import Champion, sha256_of_champion
from ml_core.tracking import mlflow_server as connection
from ml_core.tracking import sync_champion
from ml_core.tracking.mlflow_registry import sync_champion_version


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with running_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def send(path: Path, uri: str) -> Any:
    return sync_champion_version(view_champion(path), uri)


def versions(uri: str, name: str) -> list[Any]:
    found = MlflowClient(uri, registry_uri=uri).search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))


def champion_version(uri: str, name: str) -> int:
    """Return the version that has the alias."""
    client = MlflowClient(uri, registry_uri=uri)
    return int(client.get_model_version_by_alias(name, "champion").version)


def run_of(path: Path) -> RunDir:
    return Champion.load(path).run_dir(path)


def test_a_champion_is_registered_with_its_weights_and_operating_point(
    server: MlflowServer, tmp_path: Path
) -> None:
    path = make_champion(tmp_path)
    (result,) = track_sync([path], server.uri).values()
    (version,) = versions(server.uri, tmp_path.name)
    run = on_server(server.uri, run_of(path))
    weights = Champion.load(path).run["weights_sha256"]

    assert (result["version"], result["is_new"], result["is_champion"]) == (1, True, True)
    assert champion_version(server.uri, tmp_path.name) == 1
    assert version.run_id == run.info.run_id
    assert version.source == f"{run.info.artifact_uri}/champion/{weights[:12]}"
    assert version.tags["weights_sha256"] == weights
    assert version.tags["threshold"] == "0.31"
    assert version.tags["temperature"] == "1.4"
    assert version.tags["champion_sha256"] == sha256_of_champion(path)
    assert version.tags["valid.roc_auc"] == "0.9300 (0.9100 to 0.9500)"
    assert not {"valid.f2", "test_openings"} & set(version.tags)  # not known
    assert "the best mean roc_auc, on 1500 patches of valid" in version.description
    assert "one-seed" in version.description
    assert run.info.status == "FINISHED"  # the whole run came with it

    sent = artifacts_of(server.uri, run.info.run_id)
    assert not [each for each in sent if each.endswith((".pkl", ".pth", "MLmodel"))]
    assert {each for each in sent if "champion/" in each} == {
        f"champion/{weights[:12]}/{name}"
        for name in ("champion.json", "model.safetensors", "state.json")
    }
    folder = MlflowClient(server.uri).download_artifacts(
        run.info.run_id, f"champion/{weights[:12]}", str(tmp_path)
    )
    assert (load_file(Path(folder) / "model.safetensors")["net.weight"] == np.ones(4)).all()


def test_the_same_weights_are_one_version_whatever_else_is_chosen_anew(
    server: MlflowServer, tmp_path: Path
) -> None:
    path = make_champion(tmp_path)
    send(path, server.uri)
    again = send(path, server.uri)
    assert (again.version, again.is_new, again.artifacts_sent) == (1, False, 0)

    make_champion(tmp_path, run=run_of(path), threshold=0.2, created_at="2026-01-03T06:00:00+00:00")
    changed = send(path, server.uri)
    assert (changed.version, changed.is_new, changed.artifacts_sent) == (1, False, 1)
    (version,) = versions(server.uri, tmp_path.name)
    assert version.tags["threshold"] == "0.2"
    assert champion_version(server.uri, tmp_path.name) == 1


def test_a_new_champion_takes_the_alias_and_old_versions_stay(
    server: MlflowServer, tmp_path: Path
) -> None:
    old = make_champion(tmp_path, weight=1.0, name="champion-1.json")
    new = make_champion(tmp_path, weight=2.0, created_at="2026-02-02T06:00:00+00:00")
    send(old, server.uri)
    assert send(new, server.uri).version == 2
    assert champion_version(server.uri, tmp_path.name) == 2
    assert [each.tags["weights_sha256"] for each in versions(server.uri, tmp_path.name)] == [
        Champion.load(path).run["weights_sha256"] for path in (old, new)
    ]


def test_a_champion_sent_late_does_not_take_the_alias_from_a_later_choice(
    server: MlflowServer, tmp_path: Path
) -> None:
    old = make_champion(tmp_path, weight=1.0, name="champion-1.json")
    new = make_champion(tmp_path, weight=2.0, created_at="2026-02-02T06:00:00+00:00")
    send(new, server.uri)
    assert send(old, server.uri).is_champion is False
    assert champion_version(server.uri, tmp_path.name) == 1
    assert len(versions(server.uri, tmp_path.name)) == 2


def test_the_openings_of_the_test_set_are_told_when_this_champion_was_tested(
    server: MlflowServer, tmp_path: Path
) -> None:
    path = make_champion(tmp_path)
    scores_path = run_of(path).scores_path("test")
    of_another = {"champion": {"sha256": "00"}, "openings": {"num": 7}}
    write_json(scores_path, of_another)
    send(path, server.uri)
    assert "test_openings" not in versions(server.uri, tmp_path.name)[0].tags
    write_json(scores_path, {**of_another, "champion": {"sha256": sha256_of_champion(path)}})
    send(path, server.uri)
    assert versions(server.uri, tmp_path.name)[0].tags["test_openings"] == "7"


def test_weights_that_changed_since_are_never_registered(tmp_path: Path) -> None:
    path = make_champion(tmp_path)
    write_weights(run_of(path), 3.0)
    with pytest.raises(RunError, match="best checkpoint"):
        track_sync([path], REFUSED)
    path.write_text("{}")
    with pytest.raises(RunError, match="is not a champion"):
        track_sync([path], REFUSED)


class KilledError(BaseException):
    """Stands for SIGKILL: nothing in the library may catch it."""


def test_a_champion_whose_sender_is_killed_anywhere_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_champion(tmp_path)
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
        calls_left = 1 + num_kills
        try:
            result = send(path, uri)
            break
        except KilledError:
            num_kills += 1
    assert num_kills > 10
    assert (result.version, result.is_champion) == (1, True)
    assert len(versions(uri, tmp_path.name)) == 1
    assert len(runs_on_server(uri, tmp_path.name)) == 1
    assert champion_version(uri, tmp_path.name) == 1


def test_select_sends_its_champion_and_a_refusal_is_one_line_with_the_command(
    server: MlflowServer, tmp_path: Path
) -> None:
    path = make_champion(tmp_path)
    assert sync_champion(path, server.uri).complete
    assert champion_version(server.uri, tmp_path.name) == 1

    outcome = sync_champion(path, REFUSED)
    assert not outcome.complete
    assert "connection refused" in outcome.message
    assert f"ml-core track sync {path}" in outcome.message
    assert outcome.message.count("ml-core track sync") == 1
    assert "\n" not in outcome.message

    outcome = sync_champion(path, server.uri, timeout_s=0.1)
    assert "not done after 0.1 s" in outcome.message
    assert f"ml-core track sync {path}" in outcome.message


def test_a_dead_server_is_reported_with_the_command_that_repeats_it(tmp_path: Path) -> None:
    path = make_champion(tmp_path)
    with pytest.raises(TrackingError, match=f"connection refused.*track sync {path}"):
        track_sync([path], REFUSED)


def test_an_experiment_may_have_a_name_that_no_model_can_have(
    server: MlflowServer, tmp_path: Path
) -> None:
    run = make_run(tmp_path, experiment_name="breast/pcam: small")
    path = make_champion(tmp_path, run=run)
    assert send(path, server.uri).name == "breast_pcam_ small"
    assert champion_version(server.uri, "breast_pcam_ small") == 1
