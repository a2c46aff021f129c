"""Taking a slot of a study, so that no other worker has it."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping
from typing import Any

from ml_core.durable import sync
from ml_core.runs import write_text
from ml_core.search.study_dir import AttemptDir, StudyDir


def claim(
    study: StudyDir,
    number: int,
    attempt: int,
    params: Mapping[str, Any],
    *,
    worker: Mapping[str, Any],
    now: str,
) -> AttemptDir | None:
    """Take an attempt at slot `number` for `worker`; None when another was quicker.

    The directory is made aside, with who claims it for what, and then renamed: a rename onto a
    directory that holds something fails, on NFS too, so that the claim and its content are one act
    and a kill leaves no claim without an owner. Raises OSError when it cannot be written.
    """
    folder = study.attempt(number, attempt)
    name = f".{folder.name}.{worker['host']}.{worker['pid']}.claim"
    aside = AttemptDir(study.trials_dir / name)
    shutil.rmtree(aside.path, ignore_errors=True)  # of a process that had this pid and was killed
    aside.path.mkdir()
    try:
        content = {"number": number, "attempt": attempt, "params": dict(params)}
        content |= {"claimed_at": now, "worker": dict(worker)}
        write_text(aside.claim_path, json.dumps(content, indent=2) + "\n")
        aside.heartbeat_path.touch()
        sync(aside.path)
        aside.path.rename(folder.path)
    except OSError as error:
        shutil.rmtree(aside.path, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise
    sync(study.trials_dir)
    return folder
