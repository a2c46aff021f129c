"""Sends a run, a study or a champion to MLflow, whichever a path is."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ml_core.config import Config
from ml_core.errors import ConfigError, RunError
from ml_core.log import shown
from ml_core.pipeline.syncing.mlflow_views import view_champion, view_study
from ml_core.runs import RunDir
from ml_core.search.study_dir import StudyDir
from ml_core.tracking.mlflow_registry import ChampionSyncResult, sync_champion_version
from ml_core.tracking.mlflow_study import StudySyncResult, sync_study
from ml_core.tracking.mlflow_sync import SyncResult, sync_run

logger = logging.getLogger("ml_core.track")


def send(path: Path, uri: str | None) -> SyncResult | StudySyncResult | ChampionSyncResult:
    """Send what is at `path`; raises RunError when that is nothing MLflow could be sent.

    The server is `uri`, or what the config of the run or study names, or MLFLOW_TRACKING_URI.
    """
    if path.is_file():
        return _send_champion(path, uri)
    if StudyDir(path).record_path.is_file():
        return _send_study(StudyDir(path), uri)
    if RunDir(path).record_path.is_file():
        return _send_run(RunDir(path), uri)
    raise RunError(
        f"{path} is nothing to send: it is no run (it has no run.json), no study (no study.json) "
        "and no champion.json."
    )


def _send_run(run: RunDir, uri: str | None) -> SyncResult:
    result = sync_run(run, _target(uri, run.config_path, run.path))
    logger.info(
        "%s: %d values sent, %d were there already, %d artifacts",
        shown(run.path), result.sent, result.already_there, result.artifacts_sent,
    )  # fmt: skip
    return result


def _send_study(study: StudyDir, uri: str | None) -> StudySyncResult:
    target = _target(uri, study.config_path, study.path)
    result = sync_study(view_study(study), target)
    logger.info(
        "%s: %d of its trials were new, %d values sent, %d artifacts",
        shown(study.path), result.trials_sent, result.sent, result.artifacts_sent,
    )  # fmt: skip
    return result


def _send_champion(path: Path, uri: str | None) -> ChampionSyncResult:
    champion = view_champion(path)
    result = sync_champion_version(champion, _target(uri, champion.run.config_path, path))
    logger.info(
        "%s: version %d of %s%s, %s",
        shown(path), result.version, result.name, " (new)" if result.is_new else "",
        "the champion" if result.is_champion else "not the champion: one frozen later is",
    )  # fmt: skip
    return result


def _target(uri: str | None, config_path: Path, path: Path) -> str:
    target = uri or Config.load(config_path).tracking.mlflow_uri
    target = target or os.environ.get("MLFLOW_TRACKING_URI")
    if target is None:
        raise ConfigError(
            f"{path} names no MLflow server. Say which: ml-core track sync {path} --uri URI."
        )
    return target
