"""A run's best weights as a model, ready to predict."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ml_core.checkpoint import load_best
from ml_core.config import Config
from ml_core.models import PatchClassifier, build_from_spec
from ml_core.pipeline.device import choose_device, choose_precision
from ml_core.runs import RunDir


@dataclass(frozen=True)
class TrainedModel:
    """The model of the best epoch on its device, and which weights these are."""

    model: PatchClassifier
    device: torch.device
    precision: str
    weights_sha256: str
    epoch: int


def load_trained(run: RunDir, config: Config) -> TrainedModel:
    """Load the verified best checkpoint of `run`; raises CheckpointError."""
    checkpoint = load_best(run.checkpoints_dir)
    device = choose_device(config.training.device)
    model = build_from_spec(checkpoint.model_spec)
    model.load_state_dict(checkpoint.model_state)
    model = model.to(device)
    if config.training.channels_last:  # as in training: the format may change the last bits
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedModel(
        model=model,
        device=device,
        precision=choose_precision(config.training.precision, device),
        weights_sha256=checkpoint.weights_sha256,
        epoch=int(checkpoint.state["train"]["best_epoch"]),
    )
