"""The folder of a run's checkpoints: publish one, find the newest or the best, drop the old."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ml_core.checkpoint.files import (
    Checkpoint,
    load_checkpoint,
    step_of,
    to_files,
    was_best,
    write_file,
    writer_of,
)
from ml_core.durable import make_folder, sync
from ml_core.errors import CheckpointError
from ml_core.lease import Lease

KEEP = 4  # generations besides best: with the newest three damaged there is one to go on from
_STEP = re.compile(r"step-\d{8,}")
# Beside a checkpoint, while it changes: .step-00000790.WHOSE.WHAT.tmp, the writer's token and
_NEW, _REPLACED, _OUT = "new", "replaced", "out"
_ALONE = "alone"  # in the place of the token, without a lease

logger = logging.getLogger("ml_core.checkpoint")


def save_checkpoint(
    directory: Path,
    step: int,
    *,
    model: torch.nn.Module,
    model_spec: Mapping[str, Any],
    optimizer: torch.optim.Optimizer | None,
    state: Mapping[str, Any],
    best: bool,
    lease: Lease | None = None,
) -> Path:
    """Write `directory/step-N`, point `last` (and `best`) at it, and drop old generations.

    A step that is the best stays so when it is saved again. Raises OSError when the disk is full
    or the folder cannot be written, RunError when the lease was lost; what was there stays.
    """
    writer = _Writer(directory, lease)
    final = directory / f"step-{step:08d}"
    best = best or _best(directory) == final
    token = lease.token if lease is not None else None
    files = to_files(model, model_spec, optimizer, state, is_best=best, writer=token)
    try:
        writer.publish(final, files)
        writer.point("last", final)
        if best:
            writer.point("best", final)
        writer.drop_old(step)
    except OSError:
        writer.check()  # whoever took over has cleared away what this process had in hand
        raise
    return final


def load_last(directory: Path) -> Checkpoint:
    """Load the newest whole checkpoint, for the one process that goes on with the run.

    One that is damaged, or whose writer had been replaced, is reported and the one before it used.
    The run then believes in the best epoch of that one, so `best` is made to agree: a save may have
    been killed before the link, or the best one be among the damaged.
    Raises CheckpointError when none is left.
    """
    writer = _Writer(directory, None)
    writer.put_back()
    generations = _generations(directory)
    if not generations:
        raise CheckpointError(f"{directory} holds no checkpoint; the run ended before its first.")
    for number, path in enumerate(generations):
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s Trying the checkpoint before it.", error)
            continue
        best = next((each for each in generations[number:] if was_best(each)), None)
        if best is not None and best != _best(directory):
            writer.point("best", best)
        return checkpoint
    raise CheckpointError(f"every checkpoint in {directory} is damaged; the run cannot go on.")


def load_best(directory: Path) -> Checkpoint:
    """Load the checkpoint that `best` points at, or the newest best one where no link is left.

    Some ways to copy a run leave links out, or make folders of them.
    """
    link = directory / "best"
    if not link.is_symlink():
        link = next((each for each in _generations(directory) if was_best(each)), link)
    return load_checkpoint(link)


class _Writer:
    """What a process does to the folder, in steps that a kill or a power cut may end anywhere.

    With a lease it is checked before each step, and what a newer process has in hand is left alone.
    """

    def __init__(self, directory: Path, lease: Lease | None) -> None:
        self.directory = directory
        self.lease = lease
        self.name = lease.token if lease is not None else _ALONE

    def publish(self, final: Path, files: Mapping[str, bytes]) -> None:
        """Make the folder `final` of `files`; one of the same step is replaced when that is whole.

        That happens after a resume from an earlier one, and where an epoch ends at a checkpoint.
        """
        self.check()  # first: a run that was moved away must not be begun anew here
        make_folder(self.directory)
        self.put_back()
        self._clear()
        new = self._aside(final, _NEW)
        try:
            new.mkdir()
            for name, content in files.items():
                write_file(new / name, content)
            sync(new)
            self.check()
            if final.exists():
                final.rename(self._aside(final, _REPLACED))
            new.rename(final)
            sync(self.directory)
        finally:
            self.put_back()
            self._clear()

    def point(self, name: str, target: Path) -> None:
        """Make the link `name` point at `target`; readers see the old or the new target."""
        self.check()
        aside = self.directory / f".{name}.tmp"
        aside.unlink(missing_ok=True)
        aside.symlink_to(target.name)
        link = self.directory / name
        if link.is_dir() and not link.is_symlink():  # the run was copied by a tool without links
            link.rename(self._aside(target, _OUT))
        os.replace(aside, link)
        sync(self.directory)

    def drop_old(self, step: int) -> None:
        """Keep the newest generations up to `step`, and the best one as it was at each of them.

        With a lease, later ones of earlier processes go: they were refused when this one went on
        from before them, and must not count as something to fall back on.
        """
        self.check()
        generations = _generations(self.directory)
        old = [path for path in generations if step_of(path) <= step][KEEP:]
        kept = {next((path for path in old if was_best(path)), None), _best(self.directory)}
        later = [path for path in generations if step_of(path) > step and self._precedes(path)]
        for path in (*old, *later):
            if path not in kept:
                path.rename(self._aside(path, _OUT))  # at once: half of it would be a damaged one
        self._clear()

    def put_back(self) -> None:
        """Give a checkpoint its name again whose replacement did not come to that."""
        for aside in self._leftovers(_REPLACED):
            final = self.directory / aside.name.split(".")[1]
            if not final.exists():
                aside.rename(final)
                sync(self.directory)

    def _aside(self, path: Path, what: str) -> Path:
        return self.directory / f".{path.name}.{self.name}.{what}.tmp"

    def _clear(self) -> None:
        """Remove what a save that was killed, or has failed, left behind."""
        for path in self._leftovers():
            shutil.rmtree(path, ignore_errors=True)

    def _leftovers(self, what: str = "") -> list[Path]:
        """Return the folders left aside by this process and those it came after."""
        found = sorted(self.directory.glob(f".step-*{what}.tmp"))
        return [path for path in found if self._knows(path.name.split(".")[2])]

    def _precedes(self, path: Path) -> bool:
        """Return whether the checkpoint at `path` is of this process or one it came after."""
        return self.lease is not None and self._knows(writer_of(path))

    def _knows(self, name: str | None) -> bool:
        return self.lease is None or name in (*self.lease.tokens, _ALONE, "tmp", None)

    def check(self) -> None:
        """Raise RunError where another process has taken over."""
        if self.lease is not None:
            self.lease.check()


def _generations(directory: Path) -> list[Path]:
    """Return the checkpoints in `directory`, the newest first."""
    found = [path for path in directory.glob("step-*") if _STEP.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def _best(directory: Path) -> Path | None:
    """Return what the link `best` points at."""
    link = directory / "best"
    return directory / link.readlink() if link.is_symlink() else None
