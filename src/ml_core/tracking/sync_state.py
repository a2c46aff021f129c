"""What of a run has reached MLflow: the file sync.json of the run's directory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ml_core.errors import RunError
from ml_core.runs import RunDir, read_json, write_json


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
    error: str | None = None

    @classmethod
    def load(cls, run: RunDir, uri: str) -> SyncState:
        """Return what sync.json says of the server at `uri`; a blank state if it says nothing."""
        blank = cls(without_password(uri))
        try:
            raw = read_json(sync_state_path(run))
            state = cls(**raw)
        except (RunError, TypeError):
            return blank
        return state if state.uri == blank.uri else blank

    def save(self, run: RunDir) -> None:
        write_json(sync_state_path(run), dataclasses.asdict(self))


def sync_state_path(run: RunDir) -> Path:
    """Return where the state is kept."""
    return run.path / "sync.json"


def without_password(uri: str) -> str:
    """Return `uri` as it may be shown: `http://user:secret@host` becomes `http://host`."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
