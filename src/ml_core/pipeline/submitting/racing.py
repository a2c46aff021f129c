"""Refuse to go on with a run or study with which a job goes on already."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_core.cluster.slurm import list_jobs
from ml_core.cluster.submission import remembered
from ml_core.errors import ClusterError, cannot_write
from ml_core.lease import Lineage
from ml_core.lease.run_lock import lock_run
from ml_core.runs import RunDir


@contextmanager
def sole_submitter(path: Path) -> Iterator[None]:
    """Keep other submissions for the folder `path` out meanwhile; raises ClusterError beside one.

    Its lock is gone with this process. A file system that locks no folders is left to
    `refuse_second`.
    """
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ClusterError(cannot_write(path, error)) from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClusterError(
                f"another ml-core submit is about to go on with {path}. See what became of it: "
                "ml-core jobs"
            ) from error
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise ClusterError(cannot_write(path, error)) from error
        yield
    finally:
        os.close(folder)


def refuse_second(path: Path, user: str, *, is_study: bool) -> None:
    """Raise ClusterError where `user` has submitted already what goes on with `path`.

    Of a run also while the job that wrote it last is in the queue, and RunError while any process
    writes into it. Of a study others may run trials: that is what it is for.
    """
    queue = {job.id.partition("_")[0]: job for job in list_jobs(user=user) if not job.has_ended}
    for submission in remembered():
        for submitted in submission.jobs:
            if _is_same(submission.resumes, path) and submitted.id in queue:
                raise _refusal(path, submitted.id, queue[submitted.id].state)
    if is_study:
        return
    run = RunDir(path)
    newest = Lineage.read(run.lease_path).newest
    if newest is not None and newest.job is not None:
        tasks = list_jobs(ids=[newest.job])  # several: an array, whose last task has this id too
        if len(tasks) == 1 and not tasks[0].has_ended:
            raise _refusal(path, tasks[0].id, tasks[0].state)
    with contextlib.closing(lock_run(run, newest, replace=False)):
        pass  # nobody holds it


def _is_same(one: Path | None, other: Path) -> bool:
    """Return whether both are one folder, however each is spelled."""
    return one is not None and one.resolve() == other.resolve()


def _refusal(path: Path, job: str, state: str) -> ClusterError:
    return ClusterError(
        f"job {job} ({state}) goes on with {path} already. Wait for it, or: scancel {job}"
    )
