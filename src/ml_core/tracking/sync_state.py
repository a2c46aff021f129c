"""What of a run or study has reached MLflow: the file sync.json of its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ml_core.errors import RunError
from ml_core.runs import RunDir, read_json, write_json
from ml_core.tracking.describe import artifact_paths


@dataclass
class SyncState:
    """The last word of the last syncer; `complete` when it left nothing behind.

    Derived and disposable: without it the logs are compared with the server, and files sent again.
    """

    uri: str
    complete: bool = False
    sent_at: str | None = None
    mlflow_run_id: str | None = None
    url: str | None = None
    sent: int = 0
    already_there: int = 0
    skipped: int = 0
    lines: dict[str, int] = field(default_factory=dict)  # per log: how many lines have arrived
    artifacts: dict[str, str] = field(default_factory=dict)  # per file: the SHA-256 that was sent
    seen: dict[str, list[int]] = field(default_factory=dict)  # per file, when it was `complete`
    error: str | None = None

    @classmethod
    def load(cls, directory: Path, uri: str) -> SyncState:
        """Return what sync.json says of the server at `uri`; a blank state if it says nothing."""
        blank = cls(without_password(uri))
        try:
            state = cls(**read_json(sync_state_path(directory)))
        except (RunError, TypeError):
            return blank
        return state if state.uri == blank.uri else blank

    def save(self, directory: Path) -> None:
        write_json(sync_state_path(directory), dataclasses.asdict(self))


def sync_state_path(directory: Path) -> Path:
    """Return where the state is kept."""
    return directory / "sync.json"


def look_at(run: RunDir) -> dict[str, list[int]]:
    """Return size and time of each file of `run` that is sent, to see later whether one changed."""
    return _stamps(run.path, [*artifact_paths(run), run.metrics_log_path, run.steps_log_path])


def is_up_to_date(run: RunDir, uri: str, ids_there: Collection[str]) -> bool:
    """Return whether MLflow has all of `run`, whose files nobody changed since they were sent.

    `ids_there` are MLflow's ids of the runs that the server at `uri` has: without that look, a
    database that was deleted would pass for one that is complete.
    """
    state = SyncState.load(run.path, uri)
    is_there = state.mlflow_run_id is not None and state.mlflow_run_id in ids_there
    return state.complete and is_there and state.seen == look_at(run)


def without_password(uri: str) -> str:
    """Return `uri` as it may be shown: `http://user:secret@host` becomes `http://host`."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of `sqlite:///PATH`; None for any other address."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).absolute() if uri.startswith(prefix) else None


def _stamps(root: Path, paths: Iterable[Path]) -> dict[str, list[int]]:
    stamps = {}
    for path in paths:
        if path.is_file():
            found = path.stat()
            stamps[path.relative_to(root).as_posix()] = [found.st_size, found.st_mtime_ns]
    return stamps
