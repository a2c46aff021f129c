"""A forward pass or a training step, on patches that lie on the device already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ml_core.config import Config
from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch
from ml_core.data.patch_file import evenly_spaced
from ml_core.distributed import ALONE
from ml_core.models import PatchClassifier, Preprocess, build_model
from ml_core.numerics.arithmetic import arithmetic
from ml_core.pipeline.benchmarking.figures import Variant, Work
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.training_parts import optimizer_of, trainer_settings
from ml_core.reproducibility import seed_everything
from ml_core.reused_memory import reuse_memory
from ml_core.solver.step import OptimizerStep, Position

MOST_DIFFERENT = 256  # patches; a larger batch repeats them, which takes the same time


class WorkOnBatch:
    """The model of a config, computed as `variant` says, with real patches of its train split.

    `num_patches` to work on is said at each `prepare`. A step of training is one at a learning rate
    of 0: the same numbers each time, which neither diverge nor fade to denormal ones.
    """

    def __init__(self, config: Config, variant: Variant) -> None:
        self.config = config
        self.variant = variant
        self.device = torch.device(variant.device)
        seed_everything(config.seed)
        reuse_memory()  # as a training does
        self.model = _build_model(config).to(self.device)
        if variant.layout == "channels_last":  # torch's stubs know it only beside a dtype
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Any: what is compiled is a module of torch's own. For each batch size anew: the second one
        # would else bring kernels for any size, which are slower.
        self._called: Any = self.model
        if variant.compiled:
            self._called = torch.compile(self.model, dynamic=False)
        # whatever is in them takes the same time, so that no pass over the file need look first
        any_patch = config.data.model_copy(update={"filter_data": False})
        dataset = open_split(config.model_copy(update={"data": any_patch}), "train", {})
        positions = evenly_spaced(len(dataset), MOST_DIFFERENT)
        self._patches = dataset.__getitems__(positions)
        self._num_rows = dataset.num_rows

    def prepare(self, work: Work, num_patches: int) -> Callable[[], int]:
        """Return the work on one batch of `num_patches`, which returns that number."""
        batch = self._batch(num_patches)
        return self._forward(batch) if work == "forward" else self._train_step(batch)

    def one_patch(self) -> Callable[[], Tensor]:
        """Return the way of one patch on the host to its logits on the host, without gradients."""
        image = self._on_host(1)
        self.model.eval()

        def classify() -> Tensor:
            logits = self._logits(image.to(self.device))
            return logits.float().cpu()

        return classify

    def _forward(self, batch: Batch) -> Callable[[], int]:
        self.model.eval()

        def forward() -> int:
            self._logits(batch.images)
            return len(batch.labels)

        return forward

    def _logits(self, images: Tensor) -> Tensor:
        """Return what `ml_core.evaluation.predictor` does, of a model that is in eval mode."""
        with torch.inference_mode(), arithmetic(self.variant.precision, self.device.type):
            logits: Tensor = self._called(images)
        return logits

    def _train_step(self, batch: Batch) -> Callable[[], int]:
        config, settings = self.config, trainer_settings(self.config, self.device)
        self.model.train()
        optimizer = optimizer_of(config, self.model, self.device)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        augment = Augmenter(config.seed, self._num_rows, **config.data.augment.model_dump())
        augment.set_epoch(1)
        step = OptimizerStep(
            self._called,
            optimizer,
            dataclasses.replace(settings, precision=self.variant.precision),
            self.device,
            augment=augment,
            ranks=ALONE,
        )

        def train_step() -> int:
            step.take([batch], Position(epoch=1, batch=0, step=1), len(batch.labels))
            return len(batch.labels)

        return train_step

    def _batch(self, num_patches: int) -> Batch:
        chosen = torch.arange(num_patches) % len(self._patches)
        images = self._on_host(num_patches).to(self.device)
        return Batch(images, self._patches.labels[chosen], self._patches.index[chosen])

    def _on_host(self, num_patches: int) -> Tensor:
        assert isinstance(self._patches.images, Tensor), "no transform was given"
        pixels = self._patches.images.permute(0, 2, 3, 1)  # (N, H, W, 3), as they were read
        chosen = torch.arange(num_patches) % len(pixels)
        return pixels.index_select(0, chosen).permute(0, 3, 1, 2)


def _build_model(config: Config) -> PatchClassifier:
    """Build the config's model; its preprocessing has PCam's mean, which takes the same time."""
    options = config.model.model_dump()
    preprocess = Preprocess(options.pop("normalization"))
    return build_model(
        options.pop("name"), config.data.input_shape, preprocess=preprocess, **options
    )
