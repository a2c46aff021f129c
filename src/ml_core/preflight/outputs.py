"""Every place where a job will write is tried: a file is made there, and removed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from ml_core.errors import cannot_write
from ml_core.preflight.check import Check, error, ok, warning


def check_outputs(
    needed: Mapping[str, Path], files: Mapping[str, Path], spared: Mapping[str, Path]
) -> list[Check]:
    """Return which of the places cannot be written, each {what it is for: path}, or that all can.

    In a folder a file is made and removed; folders that are not there yet are made and removed
    too. A file that is there is opened for writing and left as it was. `spared` are folders that a
    run can do without.
    """
    problems = [_try_folder(what, path) for what, path in _distinct(needed).items()]
    problems += [_try_file(what, path) for what, path in files.items()]
    checks = [error("outputs", problem) for problem in problems if problem]
    for what, path in spared.items():
        if problem := _try_folder(what, path):
            remedy = f"A run goes on without; to keep it: --set {what}=FOLDER"
            checks.append(warning("outputs", problem, remedy))
    if checks:
        return checks
    places = dict.fromkeys(map(str, [*needed.values(), *files.values(), *spared.values()]))
    return [ok("outputs", f"can be written: {', '.join(places)}.")]


def _distinct(folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return each folder once, under all it is for."""
    whats: dict[Path, list[str]] = {}
    for what, path in folders.items():
        whats.setdefault(path, []).append(what)
    return {", ".join(names): path for path, names in whats.items()}


def _try_folder(what: str, folder: Path) -> str:
    """Return why no file can be made in `folder`, "" where one could."""
    made: list[Path] = []
    trial = folder / f".ml-core-doctor-{secrets.token_hex(4)}"
    try:
        _make(folder, made)
        try:
            _write(trial)
        finally:
            trial.unlink(missing_ok=True)
    except OSError as problem:
        return f"{what}: {cannot_write(Path(problem.filename), problem)}"
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # somebody has put something there meanwhile
                path.rmdir()
    return ""


def _make(folder: Path, made: list[Path]) -> None:
    """Make `folder` and those above it, each noted in `made`."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        made.append(path)


def _write(path: Path) -> None:
    """Write a byte through to the disk: over a quota it is the disk that refuses."""
    try:
        with open(path, "xb") as file:
            file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        problem.filename = problem.filename or str(path)
        raise


def _try_file(what: str, path: Path) -> str:
    """Return why the file cannot be written, "" where it can."""
    try:
        if not path.exists():
            return _try_folder(what, path.parent)
        with open(path, "ab"):
            return ""
    except OSError as problem:
        return f"{what}: {cannot_write(path, problem)}"
