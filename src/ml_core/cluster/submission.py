"""What was submitted: which jobs, from what, into which folder; and the user's list of it all."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ml_core.durable import make_folder
from ml_core.errors import ClusterError, MLCoreError, cannot_write, first_problem
from ml_core.runs import read_json, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubmittedJob:
    """One job, or one array of jobs, as Slurm took it."""

    id: str  # "12", of an array too
    name: str
    num_tasks: int | None  # None without an array
    log: str  # as sbatch was told: with %j, or %A_%a for a task of an array, and % as %%
    go_on: str  # what to do once it has ended too early: a command, perhaps with where to look

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The ids of its tasks, "12_0" and on; its own without an array."""
        if self.num_tasks is None:
            return (self.id,)
        return tuple(f"{self.id}_{task}" for task in range(self.num_tasks))

    def log_path(self, job_id: str) -> Path:
        """Return the path of the log of "12", or of the task "12_3" of an array."""
        array, _, task = job_id.partition("_")
        values = {"%%": "%", "%j": job_id, "%A": array, "%a": task}
        return Path(re.sub(r"%[%jAa]", lambda found: values[found[0]], self.log))


@dataclass(frozen=True)
class Submission:
    """One call of ``ml-core submit``; kept as submission.json in its folder."""

    folder: Path
    command: str  # as it was typed
    verb: str
    submitted_at: str  # UTC, ISO 8601
    user: str
    cluster: str | None
    profile: str
    commit: str | None  # of the code, None outside of a repository
    jobs: tuple[SubmittedJob, ...]  # in the order in which they run
    resumes: Path | None = None  # the run or study that they go on with

    @property
    def record_path(self) -> Path:
        return self.folder / "submission.json"

    def save(self) -> None:
        """Write submission.json, whole or not at all; raises ClusterError."""
        try:
            write_json(self.record_path, dataclasses.asdict(self))
        except OSError as error:
            raise ClusterError(cannot_write(self.record_path, error)) from error

    @staticmethod
    def load(folder: Path) -> Submission:
        """Read what was submitted from `folder`, wherever it was moved to since.

        Raises RunError where there is no submission.json, ClusterError where it is none.
        """
        path = folder / "submission.json"
        try:
            return _reader().validate_python({**read_json(path), "folder": folder})
        except ValidationError as error:
            raise ClusterError(
                f"{path} is no record of a submission: {first_problem(error)}. Whether its "
                "jobs are there still, squeue --me says."
            ) from error


@functools.cache
def _reader() -> TypeAdapter[Submission]:
    """Return what checks a record: made once, since that takes longer than reading ten."""
    return TypeAdapter(Submission)


def register_path() -> Path:
    """Return the file that lists this user's submissions, by the XDG base directories.

    Raises RuntimeError for a user without a home folder.
    """
    state = os.environ.get("XDG_STATE_HOME", "")  # a relative one is to be ignored, says XDG
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "ml-core" / "submissions.jsonl"


def remember(submission: Submission) -> None:
    """Add a line to the user's register; where that cannot be written it is a warning."""
    line = {"submitted_at": submission.submitted_at, "folder": str(submission.folder)}
    try:
        path = register_path()
        make_folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)
    except (OSError, RuntimeError) as error:  # of a user without a home folder
        logger.warning(
            "the list of submissions cannot be written: %s. ml-core jobs will not list this one "
            "once Slurm has forgotten it; it is recorded in %s",
            error, submission.record_path,
        )  # fmt: skip


def remembered(since: str = "") -> tuple[Submission, ...]:
    """Return this user's submissions, newest first; those of `since` (UTC, ISO 8601) and later.

    Left out: folders that are gone, and lines of the register that were cut short.
    """
    try:
        lines = register_path().read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, RuntimeError):
        return ()
    folders = {folder: at for line in lines for at, folder in _read_line(line) if at >= since}
    found = []
    for folder in sorted(folders, key=lambda folder: folders[folder], reverse=True):
        try:
            found.append(Submission.load(Path(folder)))
        except MLCoreError as error:
            logger.debug("%s", error)
    return tuple(found)


def _read_line(line: str) -> list[tuple[str, str]]:
    """Return when and where, or nothing for a line that holds neither."""
    try:
        value = json.loads(line)
        return [(str(value["submitted_at"]), str(value["folder"]))]
    except (ValueError, TypeError, KeyError):
        return []
