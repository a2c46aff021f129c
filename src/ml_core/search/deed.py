"""What one trial did: facts from running it, never the text of its config."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NUM_FIRST_STEPS = 3  # momentum shows in the third loss, not before


@dataclass(frozen=True)
class Deed:
    """What one trial did. Two trials that agree in all of it did the same.

    The model is known by the shapes of its weights, not by the options that it was built with:
    a builder that ignores an option may well keep it.
    """

    batch_shape: tuple[int, ...] = ()  # of the first batch
    num_patches: int = 0  # of train
    patches_per_step: float = math.nan  # of the steps that were looked at
    steps_per_epoch: int = 0
    num_epochs: int = 0
    num_parameters: int = 0
    weight_shapes: str = ""  # hash of name and shape of each weight
    losses: tuple[float, ...] = ()  # of the first steps
    grad_norm: float = math.nan  # at the last of them
    weight_sum: float = math.nan  # of absolute weights after them
    learning_rates: str = ""  # hash of those of all steps
    val_loss: float = math.nan  # of a first validation
    # What acts later than was looked at, as the loop holds it: patience, best metric.
    plan: Mapping[str, Any] = field(default_factory=dict)
    history: str = ""  # hash of the loss of every step and the metrics of every epoch
    is_whole: bool = True  # False: cut short, so it might have come to differ
    error: str = ""  # why it could not be done

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Deed:
        """Return what `to_dict` gave; null, which JSON has for NaN, is NaN again."""
        known = {each.name: record[each.name] for each in dataclasses.fields(cls)
                 if record.get(each.name) is not None}  # fmt: skip
        for name in ("batch_shape", "losses"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


# What two trials that did the same have in common.
FACTS = tuple(each.name for each in dataclasses.fields(Deed)
              if each.name not in ("is_whole", "error"))  # fmt: skip


def describe(deed: Deed) -> str:
    """Return the chief facts of a deed in words."""
    parts = []
    if deed.batch_shape:
        parts.append(f"first batch {' x '.join(map(str, deed.batch_shape))}")
    if deed.steps_per_epoch:
        parts.append(f"{deed.steps_per_epoch:,} steps per epoch")
    if deed.num_parameters:
        parts.append(f"{deed.num_parameters:,} weights")
    if deed.losses:
        parts.append(f"first losses {', '.join(f'{loss:.6f}' for loss in deed.losses[:3])}")
    if math.isfinite(deed.val_loss):
        parts.append(f"validation loss {deed.val_loss:.6f}")
    return ", ".join(parts) or "nothing is known of it"


def digest(value: Any) -> str:
    """Return a short hash of a JSON-able value; equal values have equal hashes."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
