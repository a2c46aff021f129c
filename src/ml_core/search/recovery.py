"""Attempts whose worker is gone: found, given up once, and gone on with by another.

On this machine the worker's pid and its start time say at once whether it lives. On another its
attempt's heartbeat must be younger than `lost_after_s`, by the clock of the file system: clocks of
two machines may differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_core.durable import sync
from ml_core.runs import RunDir, utc_now
from ml_core.search.process import is_alive
from ml_core.search.study_dir import AttemptDir, StudyDir, StudyRecord
from ml_core.search.trials import Attempt, load_attempt, load_attempts

Liveness = Callable[[Mapping[str, Any]], bool | None]

_ORPHAN_PATIENCE_S = 10.0  # a trial without its worker saves and ends by itself


def recover(
    study: StudyDir,
    by: Mapping[str, Any],
    *,
    alive: Liveness = is_alive,
    patience_s: float = _ORPHAN_PATIENCE_S,
) -> list[Attempt]:
    """Give up the attempts whose worker is gone; return those that this call gave up.

    `by` is who does it, as `this_process` says. A trial's process that has outlived its worker for
    `patience_s` is killed. Raises OSError when the mark cannot be written.
    """
    lost_after_s = StudyRecord.load(study).lost_after_s
    given_up = []
    for attempt in load_attempts(study):
        folder = attempt.folder
        if folder is None or attempt.state != "running":
            continue
        lives = alive(attempt.worker)
        if lives is None:
            lives = heartbeat_age(study, folder, by) < lost_after_s
        elif not lives:
            _end_orphan(attempt, alive, patience_s)
        if lives:
            continue
        # It may have ended between the two looks.
        if load_attempt(folder).state != "running":
            continue
        if abandon(folder, by):
            given_up.append(attempt)
    return given_up


def abandon(folder: AttemptDir, by: Mapping[str, Any]) -> bool:
    """Mark an attempt as lost; return whether this call did, of all that may try at once."""
    try:
        descriptor = os.open(folder.abandoned_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="utf-8") as file:  # that it is there is what counts
        json.dump({"abandoned_at": utc_now(), "by": dict(by)}, file)
    sync(folder.abandoned_path)
    sync(folder.path)
    return True


def heartbeat_age(study: StudyDir, folder: AttemptDir, by: Mapping[str, Any]) -> float:
    """Return the seconds since the attempt's process last touched its heartbeat."""
    probe = study.path / f".now.{by['host']}.{by['pid']}"
    try:
        probe.touch()
        os.utime(probe)  # no time given: the file server puts its own
        return _modified(probe) - _modified(folder.heartbeat_path)
    finally:
        probe.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    with open(path, "rb") as file:  # opening makes NFS ask the server instead of its memory
        return os.fstat(file.fileno()).st_mtime


def _end_orphan(attempt: Attempt, alive: Liveness, patience_s: float) -> None:
    """See to it that the trial of a dead worker has ended, so that its files stand still."""
    process = attempt.process
    if not process or not alive(process):
        return
    deadline = time.monotonic() + patience_s
    while alive(process):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process["pid"]), signal.SIGKILL)
        time.sleep(0.05)


def inherit_run(study: StudyDir, number: int, attempt: int) -> Attempt | None:
    """Copy the run of the newest earlier attempt that has checkpoints; return that attempt.

    None when there is none, or its files changed while they were copied; the attempt then begins
    from the start. The copy appears whole or not at all.
    """
    run = study.attempt(number, attempt).run
    for earlier in reversed(range(attempt)):
        folder = study.attempt(number, earlier)
        if folder.claim_path.is_file() and any(folder.run.checkpoints_dir.glob("step-*")):
            with contextlib.suppress(shutil.Error, OSError):
                _copy_run(folder.run, run)
                return load_attempt(folder)
    return None


def _copy_run(source: RunDir, target: RunDir) -> None:
    """Copy a run; its checkpoints first, so that the logs lack no step that a checkpoint has."""
    aside = target.path.with_name(".run.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        relative = source.checkpoints_dir.relative_to(source.path)
        leftovers = shutil.ignore_patterns(".*")
        shutil.copytree(source.checkpoints_dir, aside / relative, symlinks=True, ignore=leftovers)

        def not_again(folder: str, names: list[str]) -> set[str]:
            again = {relative.name} if Path(folder) == source.path else set()
            return leftovers(folder, names) | again

        shutil.copytree(source.path, aside, symlinks=True, ignore=not_again, dirs_exist_ok=True)
        aside.rename(target.path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
