"""The right of one process to write into a run, until another takes it."""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
from collections.abc import Mapping
from typing import IO

from ml_core.errors import ConfigError, RunError
from ml_core.lease.lineage import Generation, Lineage
from ml_core.lease.run_lock import lock_run
from ml_core.runs import RunDir, utc_now


class Lease:
    """What `take` gives: the run's newest writer, while nobody has come after it.

    The kernel's lock refuses a second process at once, where the file system has locks that reach
    it. The token fences off the first one where they do not, or where it was given up.
    """

    def __init__(self, run: RunDir, lineage: Lineage, lock: IO[str]) -> None:
        self.run = run
        self.lineage = lineage
        self._lock = lock
        self._seen: tuple[int, int, int] | None = None  # of the file that was last read
        self.lineage.write(run.lease_path)

    @classmethod
    def take(cls, run: RunDir, *, job: str | None = None, restart: int = 0) -> Lease:
        """Become the run's newest writer: from here on an older one is fenced off.

        Raises RunError while another process holds the run's lock, unless that is an earlier start
        of the same `job`, which the scheduler has given up; OSError when the run cannot be written.
        """
        last = Lineage.read(run.lease_path).newest
        same_job = last is not None and job is not None and last.job == job
        is_restart = same_job and last is not None and restart > last.restart
        lock = lock_run(run, last, replace=is_restart)
        try:
            generation = Generation(
                token=secrets.token_hex(8),
                job=job,
                restart=restart,
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at=utc_now(),
            )
            # Read again: others may have come and gone while this one waited for the lock.
            earlier = Lineage.read(run.lease_path).generations
            return cls(run, Lineage((*earlier, generation)), lock)
        except BaseException:
            lock.close()
            raise

    @property
    def token(self) -> str:
        """What checkpoints of this process carry."""
        return self.lineage.generations[-1].token

    @property
    def tokens(self) -> frozenset[str]:
        """The tokens of this process and those before it, not of one that took over."""
        return frozenset(generation.token for generation in self.lineage.generations)

    def take_over_at(self, step: int) -> None:
        """Note the step to go on from: what an older process publishes beyond it does not count.

        To be called before the first publish. Raises RunError where another one has taken over.
        """
        self.check()
        *earlier, mine = self.lineage.generations
        mine = dataclasses.replace(mine, taken_over_at_step=step)
        self.lineage = Lineage((*earlier, mine))
        self.lineage.write(self.run.lease_path)

    def check(self) -> None:
        """Return while this is the run's newest writer; raise RunError when it is not.

        The file is read only after it was replaced, else this costs some microseconds. It is opened
        each time: NFS asks its server anew for a file that is opened, not for one looked at.
        """
        path = self.run.lease_path
        try:
            with open(path, "rb") as file:
                seen = _identity(os.fstat(file.fileno()))
        except FileNotFoundError as error:
            raise RunError(
                f"{path} is gone, and with it the word on who may write into this run: this "
                f"process stops. Go on with: ml-core train --resume {self.run.path}"
            ) from error
        if seen == self._seen:
            return
        newest = Lineage.read(path).newest
        if newest is None or newest.token != self.token:
            raise RunError(
                f"{self.run.path} was taken over by {newest}: this process stops, and nothing that "
                "it computed since is used. The other goes on; this one needs nothing more."
            )
        self._seen = seen

    def release(self) -> None:
        """Let others train in the run."""
        self._lock.close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def slurm_job(environment: Mapping[str, str]) -> tuple[str | None, int]:
    """Return (job, restart) of the Slurm job in `environment`, (None, 0) outside of one.

    Slurm sets SLURM_RESTART_COUNT from the first restart on. Raises ConfigError where it is not a
    whole number.
    """
    job, restart = environment.get("SLURM_JOB_ID"), environment.get("SLURM_RESTART_COUNT", "0")
    if job is None:
        return None, 0
    if not restart.isdecimal():
        raise ConfigError(
            f"SLURM_RESTART_COUNT is '{restart}'; Slurm sets a whole number. Unset it, or let "
            "Slurm start the job again: scontrol requeue."
        )
    return job, int(restart)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size
