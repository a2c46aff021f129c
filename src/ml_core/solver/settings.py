"""What the training loop is told, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ml_core.errors import ConfigError, did_you_mean
from ml_core.numerics.arithmetic import PRECISIONS

LEVELS = ("fast", "elastic", "portable")


@dataclass(frozen=True)
class TrainerSettings:
    """What the loop needs to know; the meaning of each is in docs/config.md under `training`.

    `precision` is fp32, bf16 or exact, which `numerics: portable` computes in.
    """

    epochs: int = 1
    seed: int = 42
    best_metric: str = "val_roc_auc"
    early_stopping_patience: int | None = None
    clip_grad_norm: float | None = None
    accumulate_steps: int = 1
    label_smoothing: float = 0.0
    precision: str = "fp32"
    channels_last: bool = False
    numerics: str = "fast"
    micro_batch: int = 32
    checkpoint_every: int | None = None
    chain_every: int = 500

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown level or precision, or two that do not go together."""
        if self.numerics not in LEVELS:
            raise ConfigError(
                f"unknown training.numerics {self.numerics!r}; there are: {', '.join(LEVELS)}."
                + did_you_mean(self.numerics, LEVELS)
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"training.precision {self.precision!r} is not one to train in; allowed: "
                f"{', '.join(PRECISIONS)}. float16 would need its loss scaled."
            )
        if (self.numerics == "portable") != (self.precision == "exact"):
            raise ConfigError(
                f"training.numerics is {self.numerics} and the precision {self.precision}; "
                "portable computes in precision exact, and it alone."
            )

    @classmethod
    def from_course(cls, config: Mapping[str, Any]) -> TrainerSettings:
        """Read the course's nested dict; keys the loop does not know are the course's own."""
        known = {f.name for f in fields(cls)}
        training = {k: v for k, v in config.get("training", {}).items() if k in known}
        return cls(**{"seed": config.get("seed", 42), **training})
