"""Which bits came out: the first step, link of the chain and epoch at which two runs part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_core.runs import RunDir, read_jsonl
from ml_core.verification.differences import Difference

Record = Mapping[str, Any]

_OF_A_STEP = {"loss": "loss", "grad_norm": "gradient norm", "learning_rate": "learning rate"}
# Keys of a log line that say when or how fast, not what.
_WHEN = ("step", "epoch", "time", "crc", "seconds", "train_patches_per_s")
_MOST_NAMED = 3

_TWIN = "ml-core twin CONFIG shows whether this machine repeats itself."


def compare_logs(a: RunDir, b: RunDir, *, up_to_shorter: bool = False) -> list[Difference]:
    """Return the first step, link and epoch whose bits differ; [] where all agree.

    Each step is compared with the step of its number. `up_to_shorter`: the runs do not differ by
    steps that one of them has not taken, as a replay of a part. Raises RunError for a damaged log.
    """
    found = [_first_step(a, b, up_to_shorter), _first_link(a, b), _first_epoch(a, b)]
    return [difference for difference in found if difference is not None]


def _first_step(a: RunDir, b: RunDir, up_to_shorter: bool) -> Difference | None:
    for step, here, there in aligned(a.steps_log_path, b.steps_log_path, "step"):
        if here is None or there is None:
            if not up_to_shorter:
                return _missing_step(step, here, there)
            continue
        for key, words in _OF_A_STEP.items():
            if here.get(key) != there.get(key):
                return Difference(
                    "numerics", f"step {step}, {words}", *_values(here.get(key), there.get(key)),
                    f"{_since(step)}{_layers(a, b, step)}; {_TWIN}",
                )  # fmt: skip
    return None


def _since(step: int) -> str:
    return "Every step before it is the same" if step > 1 else "They part at the first step"


def _missing_step(step: int, here: Record | None, there: Record | None) -> Difference:
    return Difference(
        "numerics", f"step {step}", "taken" if here else "not taken",
        "taken" if there else "not taken", "Let both take the same number of steps.",
    )  # fmt: skip


def _layers(a: RunDir, b: RunDir, step: int) -> str:
    """Return the layers whose gradients part at `step`, as far as five logged digits show it."""
    here, there = (_line_of(run.gradients_log_path, step) for run in (a, b))
    layers = [key for key in here if key not in _WHEN and here[key] != there.get(key)]
    if not layers:
        return ""
    more = f" and {len(layers) - _MOST_NAMED} more" if len(layers) > _MOST_NAMED else ""
    return f", and at it the gradients of {', '.join(layers[:_MOST_NAMED])}{more} part"


def _first_link(a: RunDir, b: RunDir) -> Difference | None:
    """Return the first link that both chains have at the same step and that is not the same.

    The patches of a link are those since the link before it, so they are compared only where that
    is of the same step too.
    """
    is_same_span = True
    for step, here, there in aligned(a.chain_path, b.chain_path, "step"):
        if here is None or there is None:
            is_same_span = False
            continue
        if is_same_span and here["batches"] != there["batches"]:
            return Difference(
                "numerics", f"link at step {step}, patches trained on since the link before it",
                here["batches"][:12], there["batches"][:12],
                "Other patches or another order: look at data, seed and batch size.",
            )  # fmt: skip
        if here["state"] != there["state"]:
            return _other_state(step, here, there)
        is_same_span = True
    return None


def _other_state(step: int, here: Record, there: Record) -> Difference:
    """Return the first tensor, in the order of the model, that is not the same after `step`."""
    ours, theirs = here["tensors"], there["tensors"]
    names = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    if not names:  # tensors of one name only under another digest of all: not written by us
        return Difference(
            "numerics", f"link at step {step}, state", here["state"][:12], there["state"][:12],
            "A chain.jsonl was changed after its run: put it back as it was.",
        )  # fmt: skip
    return Difference(
        "numerics", f"state after step {step}, {names[0]} (of {len(names)} tensors that differ)",
        ours.get(names[0], "not there"), theirs.get(names[0], "not there"),
        "The steps up to this link made it so: verify from the checkpoint before, with --from.",
    )  # fmt: skip


def _first_epoch(a: RunDir, b: RunDir) -> Difference | None:
    for epoch, here, there in aligned(a.metrics_log_path, b.metrics_log_path, "epoch"):
        if here is None or there is None:
            continue  # said of its steps
        for key in here:
            if key not in _WHEN and here[key] != there.get(key):
                return Difference(
                    "numerics", f"epoch {epoch}, {key}", *_values(here[key], there.get(key)),
                    "Where its steps are the same, the validation split or its arithmetic is not.",
                )  # fmt: skip
    return None


def aligned(a: Path, b: Path, key: str) -> Iterator[tuple[int, Record | None, Record | None]]:
    """Yield (number, line of `a`, line of `b`) by rising `key`; None where it has none."""
    left, right = (
        ((int(line[key]), line) for line in read_jsonl(path) if key in line) for path in (a, b)
    )
    here, there = next(left, None), next(right, None)
    while here is not None or there is not None:
        number = min(line[0] for line in (here, there) if line is not None)
        ours = here[1] if here is not None and here[0] == number else None
        theirs = there[1] if there is not None and there[0] == number else None
        yield number, ours, theirs
        here = next(left, None) if ours is not None else here
        there = next(right, None) if theirs is not None else there


def _line_of(log: Path, step: int) -> Record:
    return next((line for line in read_jsonl(log) if line.get("step") == step), {})


def _values(here: Any, there: Any) -> tuple[str, str]:
    """Return both values with every digit that they have, the second with how far it is off."""
    if not isinstance(here, int | float) or not isinstance(there, int | float):
        return _shown(here), _shown(there)
    off = there - here
    share = f", {abs(off / here):.1e} of it" if here and math.isfinite(here) else ""
    return _shown(here), f"{_shown(there)} ({off:+.2e}{share})"


def _shown(value: Any) -> str:
    return "not logged" if value is None else repr(value)
