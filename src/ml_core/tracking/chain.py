"""chain.jsonl: digests of the state, each including the one before, so that a part proves itself.

    {"step": 500, "epoch": 1, "chain": SHA-256, "state": SHA-256, "batches": SHA-256, "tensors": {}}

`state` names weights, buffers and optimizer; `batches` the patches trained on since the last link,
in their order; `chain` is the SHA-256 over the previous link's `chain` and both. Whoever loads a
checkpoint and repeats the steps to the next link must get that link. There is no time in it: two
equal trainings have equal files, stopped in between or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.errors import RunError
from ml_core.runs import read_jsonl
from ml_core.tracking.log_file import LogFile

START = "0" * 64  # what the first link has for a previous one, and a link for "no batch yet"


class Chain:
    """The chain at `path`, opened to be continued.

    In a step's order of life: `note_batch` for each batch trained on, `link` where one is due. A
    checkpoint keeps `position()`; a resume gives it to `start_from`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = LogFile(path)
        self._last: dict[str, Any] | None = None
        self._head: str | None = None  # not read yet: what comes after a checkpoint may be rubbish
        self._batches = START

    def note_batch(self, index: npt.ArrayLike) -> None:
        """Add the rows of one whole batch, over all ranks, in the order they were trained on."""
        rows = np.asarray(index, dtype="<i8")
        self._batches = _sha256(bytes.fromhex(self._batches), rows.tobytes())

    def link(self, step: int, epoch: int, state: str, tensors: Mapping[str, str]) -> dict[str, Any]:
        """Write the link after `step` and return it; where that step has one already, that one.

        `state` and `tensors` are of `ml_core.numerics.state_hash.digest_state`. On return the line
        would survive a kill; raises OSError when it cannot be written.
        """
        before = self._read_head()
        if self._last is not None and self._last["step"] == step:
            return self._last
        head = next_head(before, step, epoch, state, self._batches)
        record = {
            "step": step,
            "epoch": epoch,
            "chain": head,
            "state": state,
            "batches": self._batches,
            "tensors": dict(tensors),
        }
        self._last = self._log.append(record)
        self._head, self._batches = head, START
        return self._last

    def position(self) -> dict[str, str]:
        """Return what a checkpoint must keep: the last link, and the batches noted since."""
        return {"chain": self._read_head(), "batches": self._batches}

    def start_from(self, position: Mapping[str, str] | None, step: int) -> None:
        """Go on as at `step`, from what `position` returned then; later links are forgotten.

        None is of a checkpoint older than chains: the chain goes on from the last link there is.
        Raises RunError when the file does not reach, or is not of, that checkpoint.
        """
        self.truncate(step, up_to=None if position is None else position["chain"])
        if position is None:
            return
        head = self._read_head()
        if head != position["chain"]:
            raise RunError(
                f"{self.path} does not lead to the checkpoint at step {step}: its last link up to "
                f"there is {head[:12]}, the checkpoint's {position['chain'][:12]}. Put the "
                "file back as it was, or start a new run."
            )
        self._batches = position["batches"]

    def truncate(self, after_step: int, *, up_to: str | None = None) -> None:
        """Forget the links later than `after_step`, and the batches noted since the last.

        With `up_to` also those that follow the link with that `chain`: an epoch may have ended, and
        have its link, at a step that was saved in mid-epoch.
        """
        heads = [START]

        def is_wanted(record: dict[str, Any]) -> bool:
            if record["step"] > after_step or heads[-1] == up_to:
                return False
            heads.append(record["chain"])
            return True

        self._log.keep(
            is_wanted,
            is_enough=lambda record: bool(record["chain"] == up_to),
            needs_none=up_to == START,
        )
        self._head, self._batches = None, START

    def _read_head(self) -> str:
        """Return the last link's digest, from the file where this process has not read it yet."""
        if self._head is None:
            self._last = _last_record(self.path)
            self._head = self._last["chain"] if self._last else START
        return self._head

    def flush(self) -> None:
        """Return when every link would survive a power cut; call it before saving a checkpoint."""
        self._log.sync()

    def close(self) -> None:
        self._log.close()


def next_head(head: str, step: int, epoch: int, state: str, batches: str) -> str:
    """Return the digest of the link that follows `head`: SHA-256 of the JSON list of the five."""
    return _sha256(json.dumps([head, step, epoch, state, batches]).encode())


def check_chain(path: Path, records: Sequence[Mapping[str, Any]], head: str = START) -> None:
    """Raise RunError naming the first of `records` that does not follow from the one before it."""
    for number, record in enumerate(records, start=1):
        follows = [record.get(key) for key in ("step", "epoch", "state", "batches")]
        expected = next_head(head, *follows)  # type: ignore[arg-type]  # any JSON has a digest
        has_tensors = isinstance(record.get("tensors"), dict)  # which no digest covers
        if record.get("chain") != expected or not has_tensors:
            raise RunError(
                f"{path}, line {number} (step {record.get('step')}), does not follow from the "
                "line before it: the file was changed after the run. Put it back as it was; "
                "without it, only the logged losses can be compared."
            )
        head = expected


def _last_record(path: Path) -> dict[str, Any] | None:
    last = None
    for record in read_jsonl(path):
        last = record
    return last


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()
