"""Before a search: does each searched parameter change what a trial does?

Reads a few batches of train and one of valid at each point; writes nothing. A part of

    ml-core tune experiments/configs/pcam_cnn_search.yaml
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from ml_core.config import Config
from ml_core.data.loader import Batch, EpochBatches, PatchLoader
from ml_core.data.patch_file import Rows
from ml_core.data.pcam import PCAMDataset
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import inference_loader, open_split
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.search.deed import NUM_FIRST_STEPS, Deed, digest
from ml_core.search.probe_points import probe_points
from ml_core.search.space import Params, Space, overrides
from ml_core.solver import Trainer

logger = logging.getLogger("ml_core.tune")

# Settings of the loop whose effect comes after the first steps, or only where a gradient is large.
# All others must show in what the first steps do.
LATE_SETTINGS = ("early_stopping_patience", "best_metric", "clip_grad_norm")


def probe_effects(
    config: Config, space: Space, exclude: Mapping[str, Rows]
) -> list[tuple[Params, Deed]]:
    """Return what a trial does at each of `probe_points(space)`, as `check_effects` takes it.

    Each is built as a training is and takes its first steps; a second on a CPU, but for large
    models. A point that cannot be built or run is kept with its error; nothing is skipped.
    `exclude`: rows of each split to leave out, as of the trials.
    """
    points = probe_points(space)
    logger.info("looking at %d points whether each parameter does anything", len(points))
    deeds = []
    with _threads(config.training.num_threads), _quiet_training():
        for params in points:
            try:
                deed = probe(_with_params(config, params), exclude)
            except Exception as error:  # a trial may fail, for whatever reason; so may its probe
                deed = Deed(error=f"{type(error).__name__}: {error}")
            deeds.append((params, deed))
    return deeds


def probe(config: Config, exclude: Mapping[str, Rows], num_steps: int = NUM_FIRST_STEPS) -> Deed:
    """Return what a training of `config` does in its first steps and plans to do after them."""
    device = choose_device(config.training.device)
    train_set, valid_set = (open_split(config, split, exclude) for split in ("train", "valid"))
    trainer, batches = build_trainer(config, train_set, device)
    settings = trainer.settings
    first = _FirstSteps(trainer, batches, num_steps)
    first.take(settings.epochs)
    steps_per_epoch = -(-batches.batch_sampler.num_batches // first.batches_per_step)
    learning_rates = _planned_rates(trainer, settings.epochs, steps_per_epoch)
    weights = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    shapes = [(name, list(each.shape)) for name, each in trainer.model.named_parameters()]
    return Deed(
        batch_shape=first.batch_shape,
        num_patches=len(train_set),
        patches_per_step=first.num_patches / len(first.losses),
        steps_per_epoch=steps_per_epoch,
        num_epochs=settings.epochs,
        num_parameters=sum(each.numel() for each in trainer.model.parameters()),
        weight_shapes=digest(shapes),
        losses=tuple(first.losses),
        grad_norm=_norm(each.grad for each in weights),
        weight_sum=sum(float(each.detach().double().abs().sum()) for each in weights),
        learning_rates=digest(learning_rates),
        val_loss=_first_validation(trainer, config, valid_set, device),
        plan={name: getattr(settings, name) for name in LATE_SETTINGS},
    )


class _FirstSteps:
    """The batches of a loader until the trainer has taken `num_steps` steps with them.

    How many batches a step takes is the trainer's business, so that a setting it ignores shows.
    """

    def __init__(self, trainer: Trainer, loader: PatchLoader, num_steps: int) -> None:
        self.batch_sampler: EpochBatches = loader.batch_sampler  # told its epoch by the trainer
        self.batch_shape: tuple[int, ...] = ()
        self.losses: list[float] = []  # mean over the patches of each step
        self.num_patches = 0  # of all these steps
        self.batches_per_step = 0  # as the first took them
        self._trainer = trainer
        self._loader = loader
        self._num_steps = num_steps
        self._noted = (0.0, 0)  # sum of losses, patches: of this epoch's steps that are in `losses`

    def take(self, num_epochs: int) -> None:
        """Take the steps; where an epoch has fewer, from as many of `num_epochs` as it needs."""
        for epoch in range(1, num_epochs + 1):
            self._noted = (0.0, 0)
            self._trainer.train_epoch(self, epoch)
            self._note_step()  # the last of an epoch is taken after its batches have ended
            if len(self.losses) >= self._num_steps:
                return

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            self.batch_shape = self.batch_shape or tuple(batch.images.shape)
            self.batches_per_step += not self.losses
            yield batch
            self._note_step()
            if len(self.losses) >= self._num_steps:
                return

    def _note_step(self) -> None:
        """Note the loss of a step that was taken since this was last called."""
        state, (loss_sum, num_patches) = self._trainer.state, self._noted
        if state.step > len(self.losses):
            of_step = state.patches - num_patches
            self.losses.append((state.loss_sum - loss_sum) / of_step)
            self.num_patches += of_step
            self._noted = (state.loss_sum, state.patches)


def _planned_rates(trainer: Trainer, epochs: int, steps_per_epoch: int) -> list[float]:
    """Return the learning rate of every step that is planned, by the schedule itself.

    Of one that answers to the validation loss: of every epoch, if that loss never falls.
    """
    scheduler, rate = trainer.scheduler, float(trainer.optimizer.param_groups[0]["lr"])
    if isinstance(scheduler, LambdaLR):
        base, factor = float(scheduler.base_lrs[0]), scheduler.lr_lambdas[0]
        return [base * factor(step) for step in range(epochs * steps_per_epoch)]
    assert isinstance(scheduler, ReduceLROnPlateau), "the schedules that build_scheduler makes"
    rates, before = [], scheduler.state_dict()
    for _ in range(epochs):
        rates.append(float(trainer.optimizer.param_groups[0]["lr"]))
        scheduler.step(1.0)
    scheduler.load_state_dict(before)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    return rates


def _first_validation(
    trainer: Trainer, config: Config, valid_set: PCAMDataset, device: torch.device
) -> float:
    """Return the loss over the first batch of the validation split."""
    batch = next(iter(inference_loader(config, valid_set, device)))
    return float(trainer.predict([batch]).nll.mean())


def _norm(gradients: Iterator[torch.Tensor | None]) -> float:
    squares = [float(each.double().square().sum()) for each in gradients if each is not None]
    return math.sqrt(sum(squares))


def _with_params(config: Config, params: Params) -> Config:
    """Return `config` with `params`, read as a trial reads it; raises ConfigError."""
    # what makes a whole training fast takes longer than the few batches looked at here
    plain = ["data.num_workers=0", "data.placement=file"]
    return config.with_overrides([*overrides(params), *plain, "search=null"])


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Compute with as many threads as the trials, since the last bits depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_training() -> Iterator[None]:
    """Let each probe not say what it trains on."""
    of_training = logging.getLogger("ml_core.train")
    before = of_training.level
    of_training.setLevel(logging.WARNING)
    try:
        yield
    finally:
        of_training.setLevel(before)
