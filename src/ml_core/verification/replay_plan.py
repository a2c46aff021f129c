"""Which steps of a recorded run are taken again: from the seed, or from one of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_core.errors import ConfigError, RunError
from ml_core.runs import RunDir, read_jsonl

DEFAULT_STEPS = 50  # enough to meet every kernel, in seconds on a laptop


@dataclass(frozen=True)
class ReplayPlan:
    """The steps `after_step` + 1 to `last_step`; `checkpoint` holds the state after `after_step`.

    `is_whole`: the replay ends where the recorded run did, its validation included.
    """

    after_step: int
    last_step: int
    checkpoint: Path | None
    is_whole: bool

    @property
    def num_steps(self) -> int:
        return self.last_step - self.after_step


def plan_replay(
    run: RunDir, *, steps: int | None = None, full: bool = False, from_step: int | None = None
) -> ReplayPlan:
    """Return what of `run` to replay.

    From the seed, or from the checkpoint at `from_step`: `steps` steps, or all that are recorded if
    `full`. By default DEFAULT_STEPS from the seed; from a checkpoint, up to the next link of the
    chain or checkpoint, whichever comes first. Raises RunError where the run has no such
    checkpoint, or no step after it.
    """
    if full and steps is not None:
        raise ConfigError("--full replays every step, --steps some of them: give one of the two.")
    after, checkpoint = 0, None
    if from_step is not None:
        after, checkpoint = from_step, _checkpoint_at(run, from_step)
    recorded = _last_of(record["step"] for record in read_jsonl(run.steps_log_path))
    if recorded <= after:
        raise RunError(
            f"{run.path} has logged {recorded} steps, so none after step {after} can be taken "
            "again. " + ("Choose an earlier checkpoint." if after else "Verify a run that trained.")
        )
    if full:
        last = recorded
    elif steps is not None:
        last = after + steps
    elif from_step is not None:
        last = _next_proof(run, after, recorded)
    else:
        last = DEFAULT_STEPS
    last = min(last, recorded)
    return ReplayPlan(after, last, checkpoint, is_whole=last == recorded)


def _checkpoint_at(run: RunDir, step: int) -> Path:
    found = _checkpoint_steps(run)
    if step not in found:
        there = ", ".join(str(each) for each in found) or "none"
        raise RunError(
            f"{run.path} has no checkpoint at step {step}; there are: {there}. Give --from one of "
            "these, or leave it away to start from the seed."
        )
    return run.checkpoints_dir / f"step-{step:08d}"


def _checkpoint_steps(run: RunDir) -> Sequence[int]:
    names = (path.name.removeprefix("step-") for path in run.checkpoints_dir.glob("step-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def _next_proof(run: RunDir, after: int, recorded: int) -> int:
    """Return the first step beyond `after` whose whole state is on record, else the last step."""
    links = [int(record["step"]) for record in read_jsonl(run.chain_path)]
    return min((s for s in [*links, *_checkpoint_steps(run)] if s > after), default=recorded)


def _last_of(steps: Iterator[int]) -> int:
    last = 0
    for step in steps:
        last = int(step)
    return last
