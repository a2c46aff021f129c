"""A short portable training whose every bit can be had again on any machine, as a witness.

It needs no data: the patches are drawn from random words. Who gets another hash has another
arithmetic, or another ml_core.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch
from ml_core.distributed import ALONE, Ranks
from ml_core.errors import ConfigError
from ml_core.evaluation.predictor import predict
from ml_core.models import PatchClassifier, build_from_spec
from ml_core.numerics.initial_weights import draw_weights
from ml_core.numerics.state_hash import state_hash, training_state
from ml_core.reproducibility import Stream, philox_words
from ml_core.solver.optim import build_optimizer, build_scheduler
from ml_core.solver.settings import TrainerSettings
from ml_core.solver.step import OptimizerStep, Position

NUM_PREDICTED = 64  # patches besides those trained on
FORMAT = 1

# The default CNN as experiments/configs/pcam_cnn.yaml trains it, its whole schedule in four steps
# and its gradients clipped.
DEFAULT_RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        "format": FORMAT,
        "seed": 42,
        "num_steps": 4,
        "batch_size": 32,
        "micro_batch": 16,
        "model": {
            "name": "cnn",
            "input_shape": [3, 96, 96],
            "num_classes": 2,
            "options": {
                "widths": [32, 64, 128],
                "blocks_per_stage": 1,
                "dropout_rate": 0.2,
                "average_orientations": True,
            },
            "preprocess": {
                "normalization": "standard",
                "mean": [0.6982, 0.5387, 0.6898],
                "std": [0.2370, 0.2799, 0.2236],
            },
        },
        "optimizer": {
            "name": "adamw",
            "lr": 3.0e-3,
            "weight_decay": 0.05,
            "betas": [0.9, 0.999],
        },
        "scheduler": {
            "name": "one_cycle",
            "epochs": 1,
            "steps_per_epoch": 4,
            "warmup_share": 0.15,
            "start_factor": 0.04,
            "min_factor": 4e-6,
        },
        "augment": {"dihedral": True, "stain_jitter": 0.15},
        "clip_grad_norm": 0.1,
        "label_smoothing": 0.0,
    }
)


@dataclass(frozen=True)
class Witness:
    """What a short training gave, as SHA-256 of bits; `losses` are hexadecimal floats, by step.

    `predictions` are of 64 patches in one batch, `predictions_one_by_one` the same in 64 batches.
    """

    initial_weights: str
    losses: tuple[str, ...]
    final_state: str  # weights and optimizer
    predictions: str
    predictions_one_by_one: str

    @property
    def hash(self) -> str:
        """The SHA-256 of all of it: one name for the whole training."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it; `hash` is there to be read, not to be believed."""
        return {**asdict(self), "losses": list(self.losses), "hash": self.hash}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Witness:
        """Return what `to_dict` gave; raises ConfigError where something is missing."""
        try:
            values = {name: found[name] for name in cls.__dataclass_fields__}
            for loss in values["losses"]:
                float.fromhex(loss)
            return cls(**{**values, "losses": tuple(values["losses"])})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"this is no witness: {error}. A witness is what "
                "`ml-core verify RUN --witness FILE` writes."
            ) from error

    def first_difference(self, other: Witness) -> str | None:
        """Return in words where `other` begins to differ, in the order of the training, or None."""
        if self.initial_weights != other.initial_weights:
            return "the initial weights differ"
        for step, pair in enumerate(zip(self.losses, other.losses, strict=False), start=1):
            if len(set(pair)) > 1:
                here, there = (float.fromhex(loss) for loss in pair)
                return f"the loss of step {step} differs: {here!r} and {there!r}"
        if len(self.losses) != len(other.losses):
            return f"one took {len(self.losses)} steps, the other {len(other.losses)}"
        if self.final_state != other.final_state:
            return "the weights or the optimizer state after the last step differ"
        if self != other:
            return "the predictions differ"
        return None


def run_witness(
    recipe: Mapping[str, Any],
    *,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
    reverse: bool = False,
    precision: str = "exact",
) -> Witness:
    """Train as `recipe` says, which has the keys of `DEFAULT_RECIPE`, and return what came of it.

    `reverse` takes the micro-batches of each batch from the last to the first. Neither it nor
    `ranks`, `device`, threads or instruction set may change a bit; in `precision` fp32, torch's own
    arithmetic and optimizer, some of them do. Raises ConfigError for a recipe of another format
    and for a model that exact arithmetic does not carry.
    """
    training = _Training(recipe, torch.device(device), ranks, reverse, precision)
    initial = state_hash(training_state(training.model))
    losses = tuple(training.take_step(number).hex() for number in range(recipe["num_steps"]))
    final = state_hash(training_state(training.model, training.optimizer))
    return Witness(
        initial_weights=initial,
        losses=losses,
        final_state=final,
        predictions=training.predictions(batch_size=NUM_PREDICTED),
        predictions_one_by_one=training.predictions(batch_size=1),
    )


def draw_patches(seed: int, num: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return `num` patches (num, *shape) uint8 of noise and their labels 0, 1, 0, 1, ...

    The central third of a positive patch is half as bright, so that there is something to learn.
    """
    channels, height, width = shape
    num_bytes = num * channels * height * width
    words = philox_words(seed, 0, Stream.WITNESS, -(-num_bytes // 32))  # 32 bytes a row
    levels = words.astype("<u8").view(np.uint8).reshape(-1)[:num_bytes]
    images = torch.from_numpy(levels.reshape(num, height, width, channels)).permute(0, 3, 1, 2)
    labels = torch.arange(num) % 2
    top, left = height // 3, width // 3
    images[1::2, :, top : height - top, left : width - left] >>= 1
    return images, labels


class _Training:
    def __init__(
        self,
        recipe: Mapping[str, Any],
        device: torch.device,
        ranks: Ranks,
        reverse: bool,
        precision: str,
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.ranks = ranks
        self.reverse = reverse
        self.precision = precision
        is_exact = precision == "exact"
        self.model = _build_model(recipe).to(device)
        self.optimizer = build_optimizer(self.model, **recipe["optimizer"], exact=is_exact)
        self.scheduler = build_scheduler(self.optimizer, **recipe["scheduler"])
        num_trained = recipe["num_steps"] * recipe["batch_size"]
        self.images, self.labels = draw_patches(
            recipe["seed"], num_trained + NUM_PREDICTED, self.model.input_shape
        )
        self.augment = Augmenter(recipe["seed"], num_trained, **recipe["augment"])
        self.step = OptimizerStep(
            self.model,
            self.optimizer,
            TrainerSettings(
                seed=recipe["seed"],
                numerics="portable" if is_exact else "elastic",
                precision=precision,
                micro_batch=recipe["micro_batch"],
                clip_grad_norm=recipe["clip_grad_norm"],
                label_smoothing=recipe["label_smoothing"],
            ),
            device,
            augment=self.augment,
            ranks=ranks,
        )

    def take_step(self, number: int) -> float:
        """Take step `number`, from 0, in an epoch of its own; return the mean loss."""
        epoch, size = number + 1, self.recipe["batch_size"]
        self.model.train()
        self.augment.set_epoch(epoch)
        group = self._own_batches(number * size, size)
        result = self.step.take(group, Position(epoch, batch=0, step=epoch), num_patches=size)
        self.scheduler.step()
        return result.loss

    def _own_batches(self, start: int, size: int) -> list[Batch]:
        """Return this rank's rows of a batch: as one, or its micro-batches from last to first."""
        rows = torch.arange(start, start + size)
        own = torch.split(rows, self.recipe["micro_batch"])[
            self.ranks.rank :: self.ranks.world_size
        ]
        if self.reverse:
            return [self._rows(micro) for micro in own[::-1]]
        return [self._rows(torch.cat([rows[:0], *own]))]

    def _rows(self, rows: Tensor) -> Batch:
        return Batch(self.images[rows], self.labels[rows], rows)

    def predictions(self, batch_size: int) -> str:
        """Return the SHA-256 of the logits of the patches that were not trained on."""
        rows = torch.arange(len(self.labels))[-NUM_PREDICTED:]
        batches = (self._rows(part) for part in torch.split(rows, batch_size))
        found = predict(self.model, batches, self.device, precision=self.precision)
        return hashlib.sha256(found.logit.astype("<f8").tobytes()).hexdigest()


def _build_model(recipe: Mapping[str, Any]) -> PatchClassifier:
    if recipe.get("format") != FORMAT:
        raise ConfigError(
            f"the witness has format {recipe.get('format')}; this version reads format {FORMAT}. "
            "Write it anew with `ml-core verify RUN --witness FILE`."
        )
    model = build_from_spec(recipe["model"])
    if left := draw_weights(model, recipe["seed"]):
        raise ConfigError(
            f"the weights {', '.join(left)} are not drawn by name, so they may differ between "
            "machines. A witness needs a model of convolutions, linear layers and norms."
        )
    return model
