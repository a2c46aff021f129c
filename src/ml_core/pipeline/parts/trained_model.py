"""A trained run's config, and its best weights as a model, ready to predict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ml_core.checkpoint import load_best
from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.models import PatchClassifier, build_from_spec
from ml_core.pipeline.parts.device import choose_device, choose_precision
from ml_core.reused_memory import reuse_memory
from ml_core.runs import RunDir

# What may be set anew for a trained run: where things are and how they are scored. The data may
# have moved, since their SHA-256 is compared. Everything else decided what was trained.
SETTABLE = (
    "data.data_path",
    "data.ledger_dir",
    "data.local_copy",
    "data.num_workers",
    "data.placement",
    "evaluation.false_discovery_rate",
    "evaluation.num_resamples",
    "evaluation.probe_patches",
    "evaluation.saliency_patches",
    "evaluation.target_risk",
    "evaluation.threshold",
    "slices",
    "tracking.mlflow_uri",
    "training.device",
)


def load_run_config(run: RunDir, overrides: Iterable[str] = ()) -> Config:
    """Return the config of `run` with `overrides`; raises ConfigError for a key not in SETTABLE."""
    overrides = list(overrides)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key not in SETTABLE and not key.startswith("slices."):
            raise ConfigError(
                f"--set {key}: {run.name} was trained with its own. Allowed for a trained run: "
                f"{', '.join(SETTABLE)}. For anything else start a new run."
            )
    return Config.load(run.config_path, overrides)


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
    reuse_memory()  # for the rest of this process, which predicts
    model = build_from_spec(checkpoint.model_spec)
    model.load_state_dict(checkpoint.model_state)
    model = model.to(device)
    if config.training.channels_last:  # as in training: the format may change the last bits
        # torch's stubs know memory_format only beside a dtype
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedModel(
        model=model,
        device=device,
        precision=choose_precision(config.training, device),
        weights_sha256=checkpoint.weights_sha256,
        epoch=int(checkpoint.state["train"]["best_epoch"]),
    )
