"""What a training is made of, built from a config: model, batches, optimizer, schedule, loop."""

from __future__ import annotations

import torch

from ml_core.config import Config
from ml_core.data.augment import Augmenter
from ml_core.data.checks import channel_stats
from ml_core.data.loader import PatchLoader
from ml_core.data.pcam import PCAMDataset
from ml_core.distributed import ALONE, Ranks
from ml_core.errors import ConfigError
from ml_core.lease import Lease
from ml_core.models import PatchClassifier, Preprocess, build_model
from ml_core.numerics.initial_weights import draw_weights
from ml_core.pipeline.parts.device import choose_precision
from ml_core.pipeline.parts.splits import train_loader
from ml_core.reproducibility import seed_everything
from ml_core.reused_memory import reuse_memory
from ml_core.solver import Trainer
from ml_core.solver.interrupt import StopRequest
from ml_core.solver.optim import build_optimizer, build_scheduler
from ml_core.solver.settings import TrainerSettings
from ml_core.solver.trainer import OnEpoch
from ml_core.tracking import ExperimentTracker
from ml_core.tracking.chain import Chain

FUSED_DEVICES = ("cpu", "cuda")  # for which torch has such optimizers of all three kinds


def build_trainer(
    config: Config,
    train_set: PCAMDataset,
    device: torch.device,
    *,
    model: PatchClassifier | None = None,
    tracker: ExperimentTracker | None = None,
    on_epoch: OnEpoch | None = None,
    chain: Chain | None = None,
    lease: Lease | None = None,
    ranks: Ranks = ALONE,
    stop: StopRequest | None = None,
) -> tuple[Trainer, PatchLoader]:
    """Return the loop and its batches, as `config` says; the weights are drawn by `config.seed`.

    `model` is one to go on with. Without a `tracker` nothing is written as long as only single
    epochs or steps are taken. `chain`, `lease`, `ranks` and `stop`: see `Trainer`.
    """
    seed_everything(config.seed)
    reuse_memory()  # for the rest of this process, which trains
    if model is None:
        model = build_new_model(config, train_set)
    batches = train_loader(config, train_set, device, ranks)
    optimizer = optimizer_of(config, model, device)
    scheduler = build_scheduler(
        optimizer,
        epochs=config.training.epochs,
        steps_per_epoch=-(-batches.batch_sampler.num_batches // config.training.accumulate_steps),
        **config.scheduler.model_dump(),
    )
    trainer = Trainer(
        model,
        optimizer,
        trainer_settings(config, device),
        device,
        scheduler=scheduler,
        augment=Augmenter(config.seed, train_set.num_rows, **config.data.augment.model_dump()),
        tracker=tracker,
        on_epoch=on_epoch,
        chain=chain,
        lease=lease,
        ranks=ranks,
        stop=stop,
    )
    return trainer, batches


def optimizer_of(
    config: Config, model: PatchClassifier, device: torch.device
) -> torch.optim.Optimizer:
    """Return the config's optimizer over `model`, with the steps that its numerics allow."""
    numerics = config.training.numerics
    return build_optimizer(
        model,
        **config.optimizer.model_dump(),
        exact=numerics == "portable",
        fused=numerics == "fast" and device.type in FUSED_DEVICES,
    )


def build_new_model(config: Config, train_set: PCAMDataset) -> PatchClassifier:
    """Build the model, its weights a function of the seed and their names.

    Its preprocessing carries the train split's own mean and deviation. Raises ConfigError where a
    portable training has weights that are drawn by torch.
    """
    mean, std = channel_stats(train_set)
    options = config.model.model_dump()
    preprocess = Preprocess(options.pop("normalization"), mean, std)
    model = build_model(
        options.pop("name"), config.data.input_shape, preprocess=preprocess, **options
    )
    drawn_by_torch = draw_weights(model, config.seed)
    if drawn_by_torch and config.training.numerics == "portable":
        raise ConfigError(
            f"training.numerics: portable cannot draw the initial weights of {drawn_by_torch[0]}: "
            "only linear layers, convolutions and norms have portable ones. Set it to elastic."
        )
    return model


def trainer_settings(config: Config, device: torch.device) -> TrainerSettings:
    """Return what the loop needs to know of `config`."""
    training = config.training
    return TrainerSettings(
        epochs=training.epochs,
        seed=config.seed,
        best_metric=training.best_metric,
        early_stopping_patience=training.early_stopping_patience,
        clip_grad_norm=training.clip_grad_norm,
        accumulate_steps=training.accumulate_steps,
        label_smoothing=training.label_smoothing,
        precision=choose_precision(training, device),
        channels_last=training.channels_last,
        numerics=training.numerics,
        micro_batch=training.micro_batch,
        checkpoint_every=training.checkpoint_every,
        chain_every=training.chain_every,
    )
