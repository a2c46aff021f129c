"""A trainer of a tiny network with everything on that could make two runs differ."""

import hashlib

import torch

from ml_core.data.augment import Augmenter
from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.data.pcam import PCAMDataset
from ml_core.models import build_model
from ml_core.runs import RunDir
from ml_core.solver import Trainer
from ml_core.solver.optim import build_optimizer, build_scheduler
from ml_core.solver.settings import TrainerSettings
from ml_core.tracking import ExperimentTracker
from ml_core.tracking.chain import Chain


def open_loader(data_dir, split, batch_size=32, seed=0, num_workers=0, **options):
    paths = split_paths(data_dir, split)
    is_train = split == "train"
    return build_loader(
        PCAMDataset(paths.x, paths.y),
        batch_size,
        shuffle=is_train,
        balanced=is_train,
        seed=seed,
        num_workers=num_workers,
        **options,
    )


def make_trainer(
    data_dir, tmp_path, name="run", model=None, scheduler="cosine", chained=False, **settings
):
    """A trainer with everything on that could make two runs differ: dropout and augmentation."""
    settings = TrainerSettings(**{"epochs": 2, "seed": 5, "channels_last": True, **settings})
    torch.manual_seed(1)
    model = model or build_model("cnn", dropout_rate=0.3, widths=[8, 8], blocks_per_stage=1)
    optimizer = build_optimizer(model, "adamw", lr=3e-3, weight_decay=0.01)
    run = RunDir.create(tmp_path, name)
    options = {"gamma": 0.1, "patience": 0} if scheduler == "plateau" else {}
    return Trainer(
        model,
        optimizer,
        settings,
        scheduler=build_scheduler(
            optimizer, scheduler, epochs=settings.epochs, steps_per_epoch=3, **options
        ),
        augment=Augmenter(settings.seed, 96, dihedral=True, stain_jitter=0.1),
        tracker=ExperimentTracker("tiny", {}, run=run, tensorboard=False),
        chain=Chain(run.chain_path) if chained else None,
    )


def fit(trainer, data_dir, **loader):
    return trainer.fit(open_loader(data_dir, "train", **loader), open_loader(data_dir, "valid"))


def digest(trainer):
    """One hash over every weight and every number of the optimizer."""
    parts = [p.detach() for p in trainer.model.state_dict().values()]
    for _, values in sorted(trainer.optimizer.state_dict()["state"].items()):
        parts += [values[key] for key in sorted(values)]
    return hashlib.sha256(b"".join(p.contiguous().numpy().tobytes() for p in parts)).hexdigest()
