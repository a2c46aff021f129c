"""What each level of numerics promises of a training, seen at its steps and its chain."""

import os
import signal

import pytest
import torch
from tiny_pcam import write_tiny_pcam
from tiny_trainer import digest, fit, make_trainer, open_loader

from ml_core.checkpoint import load_last
from ml_core.data.loader import Batch
from ml_core.errors import ConfigError, TrainingError
from ml_core.models import build_model
from ml_core.runs import read_jsonl
from ml_core.solver.settings import TrainerSettings
from ml_core.tracking import ExperimentTracker
from ml_core.tracking.chain import Chain

LEVELS = {
    "fast": {"numerics": "fast"},
    "elastic": {"numerics": "elastic", "micro_batch": 8},
    "portable": {"numerics": "portable", "micro_batch": 8, "precision": "exact"},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("levels") / "data")


@pytest.mark.parametrize("level", LEVELS)
def test_a_training_learns_at_every_level(data_dir, tmp_path, level):
    trainer = make_trainer(data_dir, tmp_path, epochs=3, **LEVELS[level])
    assert fit(trainer, data_dir).val_metrics["roc_auc"] > 0.9


@pytest.mark.parametrize("level", LEVELS)
def test_the_chain_of_a_resumed_training_is_that_of_an_unbroken_one(data_dir, tmp_path, level):
    straight = make_trainer(
        data_dir, tmp_path, "straight", chain_every=2, chained=True, **LEVELS[level]
    )
    fit(straight, data_dir)

    stopped = make_trainer(
        data_dir, tmp_path, "stopped", chain_every=2, chained=True, **LEVELS[level]
    )
    take_step = stopped.train_step

    def step_then_interrupt(group):
        take_step(group)
        if stopped.state.step == 4:  # one link after the checkpoint, and a batch not yet in any
            os.kill(os.getpid(), signal.SIGTERM)

    stopped.train_step = step_then_interrupt
    assert fit(stopped, data_dir).status == "interrupted"
    run = stopped.tracker.run

    resumed = make_trainer(
        data_dir, tmp_path, "fresh", chain_every=2, chained=True, **LEVELS[level]
    )
    resumed._tracker = ExperimentTracker("tiny", {}, run=run, tensorboard=False)
    resumed._chain = Chain(run.chain_path)
    resumed.load_checkpoint(load_last(run.checkpoints_dir))
    fit(resumed, data_dir)

    links = list(read_jsonl(straight.tracker.run.chain_path))
    assert [link["step"] for link in links] == [2, 3, 4, 6]  # of two epochs of three steps
    assert list(read_jsonl(run.chain_path)) == links
    assert digest(resumed) == digest(straight)


def test_a_checkpoint_is_written_every_so_many_steps(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path, epochs=1, checkpoint_every=2)
    folder, saved = trainer.tracker.run.checkpoints_dir, []
    take_step = trainer.train_step

    def look(group):
        take_step(group)
        saved.append([path.name for path in sorted(folder.glob("step-*"))])

    trainer.train_step = look
    fit(trainer, data_dir)
    assert saved == [[], [], ["step-00000002"]]  # as seen before the save of the same step
    assert load_last(folder).state["train"]["step"] == 3


def turned_round(batch, micro_batch):
    """Return `batch` with its micro-batches in the opposite order."""
    order = torch.cat(torch.arange(len(batch.labels)).split(micro_batch)[::-1])
    return Batch(batch.images[order], batch.labels[order], batch.index[order])


@pytest.mark.parametrize("level", ["elastic", "portable"])
def test_the_order_of_the_micro_batches_is_not_felt(data_dir, tmp_path, level):
    digests = []
    for turn in (False, True):
        trainer = make_trainer(data_dir, tmp_path, str(turn), **LEVELS[level])
        trainer.augment.set_epoch(1)
        for batch in open_loader(data_dir, "train"):
            trainer.train_step([turned_round(batch, 8) if turn else batch])
        digests.append(digest(trainer))
    assert digests[0] == digests[1]


def test_sums_of_floats_feel_the_order_of_their_parts(data_dir, tmp_path):
    """Without fixed point: the same micro-batches, added by autograd, in both orders."""
    digests = []
    for turn in (False, True):
        trainer = make_trainer(data_dir, tmp_path, str(turn), accumulate_steps=4)
        trainer.augment.set_epoch(1)
        for batch in open_loader(data_dir, "train"):
            parts = [
                Batch(*part) for part in zip(*(field.split(8) for field in batch), strict=True)
            ]
            trainer.train_step(parts[::-1] if turn else parts)
        digests.append(digest(trainer))
    assert digests[0] != digests[1]


@pytest.mark.parametrize("level", LEVELS)
def test_a_layer_that_remembers_what_it_saw_is_for_fast_only(data_dir, tmp_path, level):
    model = build_model("cnn", widths=[8], dropout_rate=0.0)
    model.net[1] = torch.nn.BatchNorm2d(8)
    if level == "fast":
        make_trainer(data_dir, tmp_path, model=model, **LEVELS[level])
        return
    with pytest.raises(ConfigError, match=r"net\.1 \(BatchNorm2d\) keeps running statistics"):
        make_trainer(data_dir, tmp_path, model=model, **LEVELS[level])


@pytest.mark.parametrize("level", LEVELS)
def test_a_step_that_is_not_finite_names_the_patches_and_changes_no_weight(
    data_dir, tmp_path, level
):
    trainer = make_trainer(data_dir, tmp_path, **LEVELS[level])
    trainer.augment = trainer._step.augment = None
    batch = next(iter(open_loader(data_dir, "train")))
    images = batch.images.float()
    images[20, 1, 5, 5] = float("inf")
    before = digest(trainer)
    with pytest.raises(TrainingError, match=rf"hold NaN or infinite .*{int(batch.index[20])}"):
        trainer.train_step([Batch(images, batch.labels, batch.index)])
    assert digest(trainer) == before


@pytest.mark.parametrize("level", LEVELS)
def test_a_model_that_writes_to_its_buffers_is_for_fast_only(data_dir, tmp_path, level):
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            with torch._C.DisableTorchFunction():
                self.seen += len(x)
            return x

    model = build_model("cnn", widths=[8], dropout_rate=0.0)
    model.net.append(Counting())
    trainer = make_trainer(data_dir, tmp_path, model=model, **LEVELS[level])
    before = digest_of_parameters(trainer)
    trainer.augment.set_epoch(1)
    batch = next(iter(open_loader(data_dir, "train")))
    if level == "fast":
        trainer.train_step([batch])
        return
    with pytest.raises(ConfigError, match=r"writes to its buffer net\.\d+\.seen"):
        trainer.train_step([batch])
    assert digest_of_parameters(trainer) == before


def digest_of_parameters(trainer):
    return [p.detach().flatten().tolist() for p in trainer.model.parameters()]


def test_a_level_that_is_unknown_or_of_another_precision_is_refused():
    with pytest.raises(ConfigError, match=r"unknown training\.numerics 'portabel'"):
        TrainerSettings(numerics="portabel")
    for numerics, precision in (("portable", "fp32"), ("elastic", "exact")):
        with pytest.raises(ConfigError, match="portable computes in precision exact"):
            TrainerSettings.from_course(
                {"training": {"numerics": numerics, "precision": precision}}
            )


def test_a_precision_that_is_only_measured_is_not_trained_in():
    with pytest.raises(ConfigError, match=r"'fp16' is not one to train in; allowed: fp32, bf16"):
        TrainerSettings(precision="fp16")
