"""The processes that trained in a run, in order: generation.json."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.runs import read_json, write_json


@dataclass(frozen=True)
class Generation:
    """One process that trained in the run; `job` and `restart` are the scheduler's, if any.

    `taken_over_at_step` is the step of the checkpoint it went on from, 0 where training began; None
    while it has not chosen one, and so has published nothing.
    """

    token: str
    job: str | None
    restart: int
    host: str
    pid: int
    started_at: str
    taken_over_at_step: int | None = None

    def __str__(self) -> str:
        job = f"job {self.job}, restart {self.restart}, " if self.job else ""
        return f"{job}process {self.pid} on {self.host}, since {self.started_at}"


@dataclass(frozen=True)
class Lineage:
    """The generations of a run; none in runs of versions that did not note them."""

    generations: tuple[Generation, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Lineage:
        """Return what generation.json says, or an empty lineage where there is none.

        Raises RunError when it is damaged.
        """
        if not path.exists():
            return cls()
        document = read_json(path)
        try:
            entries = document["generations"]
            if document["crc"] != _checksum(entries):
                raise ValueError("its checksum is not that of its entries")
            return cls(tuple(Generation(**entry) for entry in entries))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} is damaged: {error}. See that no process trains in {path.parent}, then "
                "remove that file: the checkpoints are then taken as they are."
            ) from error

    def write(self, path: Path) -> None:
        """Replace generation.json, atomically; raises OSError, as it was, when that fails."""
        entries = [dataclasses.asdict(generation) for generation in self.generations]
        write_json(path, {"generations": entries, "crc": _checksum(entries)})

    @property
    def newest(self) -> Generation | None:
        return self.generations[-1] if self.generations else None

    def accepts(self, token: str | None, step: int) -> bool:
        """Return whether a checkpoint at `step`, written under `token`, belongs to the run.

        What a process wrote counts up to the step at which a later one took over. A token that is
        not listed, or none, counts as older than all.
        """
        tokens = [generation.token for generation in self.generations]
        num_earlier = tokens.index(token) + 1 if token in tokens else 0
        limits = [later.taken_over_at_step for later in self.generations[num_earlier:]]
        return all(limit is None or step <= limit for limit in limits)


def _checksum(entries: Sequence[Any]) -> str:
    return f"{zlib.crc32(json.dumps(entries, sort_keys=True).encode()):08x}"
