"""A study in the folder that was asked for: begun once, however often a job that begins it starts.

It is written beside its folder and renamed, so that the folder is there with all of it or not at
all, and of several commands that begin it one does.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_core.config import Config
from ml_core.durable import sync
from ml_core.errors import RunError
from ml_core.log import shown
from ml_core.search.study_dir import StudyDir

_MOST_SHOWN = 5
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def find_study(path: Path, config: Config) -> StudyDir | None:
    """Return the study at `path` if `config` is what it began with; None where nothing is there.

    Raises RunError for a study of another config, and for a folder that holds something else.
    """
    study = StudyDir(path)
    if study.record_path.is_file():
        _refuse_other_config(study, config)
        return study
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise RunError(
            f"{shown(path)} is there and is no study: it has no study.json. Name a folder that is "
            "new or empty: --study DIR."
        )
    return None


def publish(study: StudyDir, path: Path, config: Config) -> StudyDir:
    """Give a new `study` its place at `path`, and return the study that is there then.

    That is another's, of the same `config`, where that one was quicker. Raises RunError as
    `find_study` does, and where `path` cannot be written; nothing is left of `study` then.
    """
    try:
        study.path.rename(path)
        sync(path.parent)
    except OSError as error:
        shutil.rmtree(study.path, ignore_errors=True)
        other = find_study(path, config) if error.errno in _TAKEN else None
        if other is None:
            raise RunError(
                f"the study cannot be put at {shown(path)}: {error.strerror}. Name another folder: "
                "--study DIR."
            ) from error
        return other
    return StudyDir(path)


def _refuse_other_config(study: StudyDir, config: Config) -> None:
    then, now = (
        dict(_leaves(each.model_dump(mode="json")))
        for each in (Config.load(study.config_path), config)
    )
    of_the_machine = {"data.local_copy"}
    if config.training.num_threads is None:  # the study has pinned what its first machine had
        of_the_machine.add("training.num_threads")
    keys = (then.keys() | now.keys()) - of_the_machine
    other = sorted(key for key in keys if then.get(key) != now.get(key))
    if other:
        more = f" and {len(other) - _MOST_SHOWN} more" if len(other) > _MOST_SHOWN else ""
        raise RunError(
            f"{shown(study.path)} is a study of another config: {', '.join(other[:_MOST_SHOWN])}"
            f"{more} differ. Name a new folder with --study DIR, or go on with that study as it "
            f"began: ml-core tune --resume {shown(study.path)}"
        )


def _leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything in a dumped config."""
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
