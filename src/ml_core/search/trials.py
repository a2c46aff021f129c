"""Trials as they stand, merged from the directories of their attempts.

trials/0007/
    trial.json      who claimed it, when, with which parameters; there from the first moment
    journal.jsonl   one line per epoch, one at the end; one writer
    heartbeat       touched by the trial's process
    abandoned.json  written by whoever found it dead; from then on the attempt is lost
    output.log      what its process printed
    run/            an ordinary run
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from ml_core.errors import RunError
from ml_core.runs import RunDir, read_json, read_jsonl
from ml_core.search.study_dir import AttemptDir, StudyDir, StudyRecord

State = Literal["running", "complete", "pruned", "failed", "lost"]
# Why an attempt failed or is lost; the first three would come again, the last was nobody's fault.
ERROR, NOT_FINITE, OUT_OF_MEMORY, KILLED, LOST, INTERRUPTED = (
    "error", "not finite", "out of memory", "killed", "lost", "interrupted",
)  # fmt: skip

FINISHED: tuple[State, ...] = ("complete", "pruned", "failed")
ENDINGS = (*FINISHED, INTERRUPTED)  # what a journal's last line may say


@dataclass(frozen=True)
class Attempt:
    """One attempt at a slot, as its files say."""

    number: int
    attempt: int  # 0 is the first
    params: Mapping[str, Any]
    claimed_at: str  # UTC, ISO 8601
    worker: Mapping[str, Any]  # host, pid, pid_started, ...: who claimed it
    state: State
    value: float | None = None  # complete: of the best epoch; pruned: of the last
    reports: Mapping[int, float] = field(default_factory=dict)  # metric by epoch; may be NaN
    num_rungs: Mapping[int, int] = field(default_factory=dict)  # of asha, done after each epoch
    was_stopped: bool = False  # the pruner said so after the last report
    error: str = ""
    cause: str = ""
    ended_at: str | None = None
    seconds: float = 0.0
    process: Mapping[str, Any] = field(default_factory=dict)  # host, pid, pid_started of the trial
    folder: AttemptDir | None = None

    @property
    def may_be_tried_again(self) -> bool:
        """Whether its end says nothing about its parameters."""
        return self.state == "lost" or (self.state == "failed" and self.cause.startswith(KILLED))

    @property
    def counts(self) -> bool:
        """Whether it uses up one of the slot's attempts; an interrupted one does not."""
        return self.cause != INTERRUPTED


@dataclass(frozen=True)
class Trial:
    """One slot of a study: its last attempt, and all of them.

    `state`: running; complete, pruned or failed for good; lost when the last attempt was killed or
    interrupted and is to be tried again. `value`: of a complete trial the best, of a pruned one the
    last report. `seconds`: of all attempts.
    """

    number: int
    params: Mapping[str, Any]
    state: State
    value: float | None = None
    reports: Mapping[int, float] = field(default_factory=dict)  # metric by epoch; may be NaN
    num_rungs: Mapping[int, int] = field(default_factory=dict)  # of asha, done after each epoch
    error: str = ""
    cause: str = ""
    run: RunDir | None = None  # of the last attempt; may hold nothing yet
    seconds: float = 0.0
    attempt: int = 0  # the last
    attempts: tuple[Attempt, ...] = ()

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]


def load_trials(study: StudyDir) -> list[Trial]:
    """Return the trials of `study` by number, those that were claimed so far.

    Raises RunError naming file and line for damage; a last line cut short by a crash is not there.
    """
    max_retries = StudyRecord.load(study).max_retries
    return merge(load_attempts(study), max_retries)


def load_attempts(study: StudyDir) -> list[Attempt]:
    """Return every attempt of `study`, by number, then attempt."""
    found = []
    for folder in study.attempts():
        if folder.claim_path.is_file():
            found.append(load_attempt(folder))
        elif any(folder.path.iterdir()):
            raise RunError(
                f"{folder.path} holds no trial.json, so what was tried there is not known. "
                "Put it back, or remove the directory: its slot is then tried anew."
            )
    return found


def merge(attempts: Iterable[Attempt], max_retries: int) -> list[Trial]:
    """Return the trials that attempts, in their order, make up."""
    groups = groupby(attempts, key=lambda attempt: attempt.number)
    return [_merge_slot(tuple(group), max_retries) for _, group in groups]


def _merge_slot(attempts: tuple[Attempt, ...], max_retries: int) -> Trial:
    last = attempts[-1]
    state = last.state
    if last.may_be_tried_again:
        used = sum(attempt.counts for attempt in attempts)
        state = "lost" if not last.counts or used <= max_retries else "failed"
    return Trial(
        number=last.number,
        params=last.params,
        state=state,
        value=last.value,
        reports=last.reports,
        num_rungs=last.num_rungs,
        error=last.error,
        cause=last.cause,
        run=last.folder.run if last.folder else None,
        seconds=sum(attempt.seconds for attempt in attempts),
        attempt=last.attempt,
        attempts=attempts,
    )


def load_attempt(folder: AttemptDir) -> Attempt:
    """Return the attempt in `folder`; raises RunError naming the file and line that is damaged."""
    # Whether it is abandoned is read first: what is written after that does not count.
    is_abandoned = folder.abandoned_path.exists()
    claim = _read_claim(folder)
    told = _Told.by(folder)
    state, value, cause, error = _ending(told.end, is_abandoned)
    return Attempt(
        number=folder.number,
        attempt=folder.attempt,
        params=claim["params"],
        claimed_at=claim["claimed_at"],
        worker=claim["worker"],
        state=state,
        value=value,
        reports=told.reports,
        num_rungs=told.num_rungs,
        was_stopped=told.was_stopped,
        error=error,
        cause=cause,
        ended_at=told.end.get("time"),
        seconds=_seconds(folder, told.end),
        process=told.process,
        folder=folder,
    )


@dataclass
class _Told:
    """What a journal says."""

    process: dict[str, Any] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)
    num_rungs: dict[int, int] = field(default_factory=dict)
    was_stopped: bool = False
    end: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def by(cls, folder: AttemptDir) -> _Told:
        told, num_lines = cls(), 0
        try:
            for event in read_jsonl(folder.journal_path):
                num_lines += 1
                told.add(event)
        except RunError as error:  # it says which line, and to remove it
            raise RunError(f"{error} Or remove {_anew(folder)}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{folder.journal_path}, line {num_lines} is damaged: {error!r}. Remove that line, "
                f"or {_anew(folder)}"
            ) from error
        return told

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one line."""
        if event["event"] == "start":
            self.process = dict(event)
        elif event["event"] == "report":
            epoch = int(event["epoch"])
            self.reports[epoch] = _number(event["value"])
            self.num_rungs[epoch] = int(event.get("rungs") or 0)
            self.was_stopped = bool(event.get("stop"))
        elif event["event"] == "end" and not self.end:
            if event["state"] not in ENDINGS:
                raise ValueError(f"unknown state {event['state']!r}")
            self.end = dict(event)


def _read_claim(folder: AttemptDir) -> dict[str, Any]:
    claim = read_json(folder.claim_path)
    for key, kind in {"params": dict, "claimed_at": str, "worker": dict}.items():
        if not isinstance(claim.get(key), kind):
            raise RunError(
                f"{folder.claim_path} is damaged: it has no valid '{key}'. Remove {_anew(folder)}"
            )
    return claim


def _anew(folder: AttemptDir) -> str:
    return f"the directory {folder.path.name}: its slot is then tried anew."


def _ending(end: Mapping[str, Any], is_abandoned: bool) -> tuple[State, float | None, str, str]:
    """Return state, value, cause and error of an attempt."""
    if is_abandoned:
        return "lost", None, LOST, "its worker is gone"
    if not end:
        return "running", None, "", ""
    cause, error = str(end.get("cause") or ""), str(end.get("error") or "")
    if end["state"] == "interrupted":
        return "lost", None, INTERRUPTED, error
    value = None if end.get("value") is None else _number(end["value"])
    return end["state"], value, cause, error


def _number(value: Any) -> float:
    """Return a journal's number: null stands for NaN, which JSON does not know."""
    return math.nan if value is None else float(value)


def _seconds(folder: AttemptDir, end: Mapping[str, Any]) -> float:
    """Return how long an attempt took, or has been seen alive."""
    if end.get("seconds") is not None:
        return float(end["seconds"])
    try:
        seen = folder.heartbeat_path.stat().st_mtime - folder.claim_path.stat().st_mtime
    except OSError:
        return 0.0
    return max(0.0, seen)


def best_trial(trials: Sequence[Trial], record: StudyRecord) -> Trial | None:
    """Return the complete trial with the best value, of equal ones the first; None without one."""
    best: Trial | None = None
    for trial in trials:
        if trial.state != "complete" or trial.value is None:
            continue
        if best is None or best.value is None or record.is_better(trial.value, best.value):
            best = trial
    return best
