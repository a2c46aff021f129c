"""Champions in MLflow's model registry: a version per weights, and the alias `champion` on one.

The weights go as safetensors, beside champion.json. Nothing is pickled, and the version is no
MLflow "flavour": nobody needs to run code from a registry to load it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.runs import RunDir, RunRecord
from ml_core.tracking.describe import as_tags, describe_name, safe_key
from ml_core.tracking.mlflow_run import MlflowRun
from ml_core.tracking.mlflow_server import MlflowException, MlflowServer
from ml_core.tracking.mlflow_sync import RUN_ID_TAG, sync_run
from ml_core.tracking.sync_lock import only_sender
from ml_core.tracking.sync_state import SyncState

ALIAS = "champion"
WEIGHTS_TAG, CREATED_TAG = "weights_sha256", "champion_created_at"


@dataclass(frozen=True)
class ChampionView:
    """A champion as MLflow is told of it; `files` are champion.json, the weights and their spec."""

    path: Path  # of champion.json
    run: RunDir
    weights_sha256: str
    created_at: str  # ISO 8601, UTC
    tags: Mapping[str, Any]
    description: str
    files: Sequence[Path]


@dataclass(frozen=True)
class ChampionSyncResult:
    """Which version stands for the champion, and whether it holds the alias."""

    name: str
    version: int
    url: str | None
    is_new: bool
    is_champion: bool  # False when a champion that was frozen later holds the alias
    artifacts_sent: int


def sync_champion_version(
    champion: ChampionView, tracking_uri: str, *, lock_wait_s: float = 10.0
) -> ChampionSyncResult:
    """Send the champion's run and files, register its weights once, and give it the alias.

    The model is named after the run's experiment. Of several champions the one that was frozen last
    holds the alias, in whatever order they are sent; the others keep their versions.
    Raises TrackingError when the server is not reached or refuses, RunError for a damaged run.
    """
    server = MlflowServer(tracking_uri, champion.path)
    sync_run(champion.run, tracking_uri, lock_wait_s=lock_wait_s, part_of=champion.path)
    with only_sender(champion.run.path, lock_wait_s):
        run, folder = _send_files(champion, server)
        name = safe_key(RunRecord.load(champion.run).experiment_name).replace("/", "_")
        _ensure_model(server, name)
        versions = server.call(_versions, server.client, name)
        found = _with_weights(versions, champion.weights_sha256)
        version = found or server.call(
            server.client.create_model_version,
            name,
            source=f"{run.artifact_uri}/{folder}",
            run_id=run.id,
            tags=_tags(champion),
            description=champion.description,
            await_creation_for=0,
        )
        if found is not None:
            _update(server, name, found, champion)
        is_champion = _move_alias(server, name, versions, version, champion.created_at)
    return ChampionSyncResult(
        name,
        int(version.version),
        server.address(f"models/{name}/versions/{version.version}"),
        found is None,
        is_champion,
        run.artifacts_sent,
    )


def _send_files(champion: ChampionView, server: MlflowServer) -> tuple[MlflowRun, str]:
    """Send the champion's files into a folder of its run named after the weights; return both."""
    record = RunRecord.load(champion.run)
    run = MlflowRun(
        server,
        record.experiment_name,
        {RUN_ID_TAG: record.run_id},
        name=describe_name(champion.run, record),
        started_at=record.started_at,
    )
    folder = f"champion/{champion.weights_sha256[:12]}"
    state = SyncState.load(champion.run.path, server.uri)
    files = {f"{folder}/{path.name}": path for path in champion.files}
    known = state.artifacts if state.mlflow_run_id == run.id else {}
    state.artifacts = run.send_files(files, known)
    state.save(champion.run.path)
    return run, folder


def _ensure_model(server: MlflowServer, name: str) -> None:
    def ensure() -> None:
        try:
            server.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    server.call(ensure)


def _versions(client: Any, name: str) -> list[Any]:
    versions: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        versions += page
        token = page.token
        if not token:
            return versions


def _with_weights(versions: Sequence[Any], weights_sha256: str) -> Any | None:
    same = [each for each in versions if each.tags.get(WEIGHTS_TAG) == weights_sha256]
    return min(same, key=lambda each: int(each.version), default=None)


def _tags(champion: ChampionView) -> dict[str, str]:
    own = {WEIGHTS_TAG: champion.weights_sha256, CREATED_TAG: champion.created_at}
    return as_tags({**champion.tags, **own}, "champion.json")


def _update(server: MlflowServer, name: str, version: Any, champion: ChampionView) -> None:
    """Bring a version of the same weights up to date, unless it tells of a later choice."""
    if version.tags.get(CREATED_TAG, "") > champion.created_at:
        return
    for key, value in _tags(champion).items():
        if version.tags.get(key) != value:
            server.call(
                server.client.set_model_version_tag, name, version.version, key=key, value=value
            )
    if version.description != champion.description:
        server.call(server.client.update_model_version, name, version.version, champion.description)


def _move_alias(
    server: MlflowServer, name: str, versions: Sequence[Any], version: Any, created_at: str
) -> bool:
    """Give `version` the alias unless a later champion has it; return whether it has it now."""
    model = server.call(server.client.get_registered_model, name)
    holder = model.aliases.get(ALIAS)
    if holder is not None and int(holder) == int(version.version):
        return True
    held = [each for each in versions if holder is not None and int(each.version) == int(holder)]
    if any(each.tags.get(CREATED_TAG, "") > created_at for each in held):
        return False
    server.call(server.client.set_registered_model_alias, name, ALIAS, version.version)
    return True
