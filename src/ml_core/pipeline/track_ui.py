"""Open MLflow on what is there: a folder of runs, an experiment, a study or a run.

Reads every run, study and champion.json under PATH. Where all of them name the same MLflow, that
one is opened; otherwise what is new or changed is sent to the database file PATH/mlflow.db, which
is then served on this machine only, until Ctrl-C.

    ml-core track ui runs
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from ml_core.config import Config
from ml_core.errors import MLCoreError, RunError, TrackingError
from ml_core.log import progress, shown
from ml_core.pipeline.syncing.sending import send
from ml_core.runs import RunDir
from ml_core.search.study_dir import StudyDir
from ml_core.selection.champion import Champion
from ml_core.tracking.mlflow_server import MlflowServer, is_http, sqlite_artifacts_dir
from ml_core.tracking.sync_state import is_up_to_date, sqlite_path, without_password
from ml_core.tracking.ui_server import choose_port, serving

logger = logging.getLogger("ml_core.track")


@dataclass
class Found:
    """What lies under a path; a study's trials are the study's, not runs of their own."""

    runs: list[RunDir] = field(default_factory=list)
    studies: list[StudyDir] = field(default_factory=list)
    champions: list[Path] = field(default_factory=list)

    @property
    def configs(self) -> list[Path]:
        return [*(run.config_path for run in self.runs), *(s.config_path for s in self.studies)]

    def __str__(self) -> str:
        nouns: dict[tuple[str, str], list[Any]] = {
            ("run", "runs"): self.runs,
            ("study", "studies"): self.studies,
            ("champion", "champions"): self.champions,
        }
        counts = {names[len(found) > 1]: len(found) for names, found in nouns.items() if found}
        return ", ".join(f"{num} {noun}" for noun, num in counts.items())


def track_ui(
    path: Path, port: int | None = None, *, open_browser: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """Serve MLflow until Ctrl-C, then return {"url", "uri", "start_s"}.

    `open_browser` is called with the address when it answers. Raises RunError when there is nothing
    to show or PATH cannot be written, TrackingError when `port` is taken or MLflow does not start.
    """
    started = time.monotonic()
    found = find(path)
    uri = _common_uri(found)
    if uri is not None and is_http(uri):
        return _open_server(uri, path, open_browser)
    uri = uri or f"sqlite:///{_database(path)}"
    port = choose_port(port)  # before the long part
    _send_news(found, uri, path)
    artifacts_dir = sqlite_artifacts_dir(uri)
    assert artifacts_dir is not None
    logger.info("starting MLflow's pages ...")
    with _ended_by_signals(), serving(uri, artifacts_dir, port) as server:
        start_s = time.monotonic() - started
        page = f"{server.url}/#/experiments"
        logger.info(
            "MLflow shows %s at %s (after %.0f s, %.0f s of them its start). Ctrl-C ends it.",
            found, page, start_s, server.start_s,
        )  # fmt: skip
        if open_browser is not None:
            open_browser(page)
        try:
            server.process.wait()
        except KeyboardInterrupt:
            logger.info("ending MLflow's pages")
        else:
            raise TrackingError(
                f"MLflow's server ended by itself (exit code {server.process.returncode}). "
                f"Start it again: ml-core track ui {path}"
            )
    return {"url": server.url, "uri": without_password(uri), "start_s": round(start_s, 1)}


def find(path: Path) -> Found:
    """Return the runs, studies and champions at or under `path`; raises RunError without any."""
    if not path.is_dir():
        raise RunError(f"{path} is no folder. Give a folder of runs, one experiment, study or run.")
    found = Found()
    for folder, subfolders, names in os.walk(path):
        run, study = RunDir(Path(folder)), StudyDir(Path(folder))
        if study.champion_path.name in names:
            found.champions.append(study.champion_path)
        if study.record_path.name in names:
            found.studies.append(study)
            subfolders.clear()
        elif run.record_path.name in names:
            found.runs.append(run)
            subfolders.clear()
        # `artifacts` is where MLflow keeps its copies of the files of runs
        subfolders[:] = sorted(
            name for name in subfolders if name != "artifacts" and not name.startswith(".")
        )
    if not found.runs and not found.studies:
        raise RunError(
            f"there is nothing to show: {path} holds no run (no run.json) and no study (no "
            "study.json). Train one first: ml-core run CONFIG; or give the folder where they are."
        )
    return found


def _common_uri(found: Found) -> str | None:
    """Return the MLflow that every config names; None where they differ, or one names none."""
    uris: set[str | None] = set()
    for path in found.configs:
        try:
            uris.add(Config.load(path).tracking.mlflow_uri)
        except MLCoreError as error:
            logger.warning("%s", error)
            uris.add(None)
    return uris.pop() if len(uris) == 1 else None


def _database(path: Path) -> Path:
    """Return where the database goes: into a folder of runs, but beside one run or study."""
    is_one = RunDir(path).record_path.is_file() or StudyDir(path).record_path.is_file()
    folder = path.absolute().parent if is_one else path.absolute()
    return folder / "mlflow.db"


def _open_server(
    uri: str, path: Path, open_browser: Callable[[str], object] | None
) -> dict[str, Any]:
    """Say where the team's server is, once it has answered; it is not ours to start or end."""
    MlflowServer(uri, path).run_ids()
    url = without_password(uri)
    logger.info("these runs are on the MLflow server %s", url)
    if open_browser is not None:
        open_browser(url)
    return {"url": url, "uri": url, "start_s": 0.0}


def _send_news(found: Found, uri: str, path: Path) -> None:
    """Send what the database at `uri` does not have; what cannot be sent is named and left out."""
    database = sqlite_path(uri)
    assert database is not None
    if not os.access(database if database.exists() else _nearest(database.parent), os.W_OK):
        raise RunError(
            f"{database} cannot be written, and MLflow's pages read from it. Give a folder that "
            "you may write to, or a copy of the runs."
        )
    there = MlflowServer(uri, path).run_ids()
    news = [run.path for run in found.runs if not is_up_to_date(run, uri, there)]
    if news:
        logger.info("%d of %d runs are new or changed", len(news), len(found.runs))
    todo = [*news, *(study.path for study in found.studies), *_by_age(found.champions)]
    for each in progress(todo, total=len(todo), description="into MLflow", unit="entries"):
        try:
            send(each, uri)
        except (RunError, TrackingError) as error:
            logger.warning("%s is left out: %s", shown(each), error)


def _by_age(champions: list[Path]) -> list[Path]:
    """Return the champions in the order they were frozen: their versions are numbered like that."""
    dated = []
    for path in champions:
        try:
            dated.append((Champion.load(path).created_at, path))
        except RunError as error:
            logger.warning("%s", error)
    return [path for _, path in sorted(dated)]


def _nearest(folder: Path) -> Path:
    return folder if folder.exists() else _nearest(folder.parent)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a closed terminal or `kill` end the block as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only there can signals be caught
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
