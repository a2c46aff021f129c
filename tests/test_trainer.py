"""The training loop: what it changes, what it must not, and that stopping leaves no trace."""

import copy
import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from tiny_pcam import write_tiny_pcam
from tiny_trainer import digest, fit, make_trainer, open_loader
from torch import nn

from ml_core.checkpoint import load_best, load_checkpoint, load_last
from ml_core.errors import TrainingError
from ml_core.models import MLP, Preprocess
from ml_core.runs import RunDir, read_jsonl
from ml_core.solver import Trainer
from ml_core.solver.settings import TrainerSettings
from ml_core.tracking import ExperimentTracker


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("tiny") / "data")


def test_training_learns_and_writes_one_line_per_epoch_and_step(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path, epochs=4)
    result = fit(trainer, data_dir)
    assert result.status == "completed"
    assert result.val_metrics["roc_auc"] > 0.95
    assert not result.findings
    run = trainer.tracker.run
    assert [line["epoch"] for line in read_jsonl(run.metrics_log_path)] == [1, 2, 3, 4]
    steps = list(read_jsonl(run.steps_log_path))
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert {"loss", "learning_rate", "grad_norm", "patches_per_s"} <= set(steps[0])


def test_validation_changes_no_parameter_and_no_gradient(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path)
    before = copy.deepcopy(trainer.model.state_dict())
    loss, accuracy, f1 = trainer.validate(open_loader(data_dir, "valid"), 1)
    assert 0 < loss < 10
    assert 0 <= accuracy <= 1
    assert 0 <= f1 <= 1 or np.isnan(f1)
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_one_epoch_moves_every_weight(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path)
    before = copy.deepcopy(dict(trainer.model.named_parameters()))
    trainer.train_epoch(open_loader(data_dir, "train"), 1)
    still = [n for n, p in trainer.model.named_parameters() if torch.equal(before[n], p)]
    assert still == []


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_a_resumed_run_ends_in_the_same_bits(data_dir, tmp_path, stop_after):
    straight = make_trainer(data_dir, tmp_path, "straight")
    fit(straight, data_dir)

    stopped = make_trainer(data_dir, tmp_path, "stopped")
    take_step = stopped.train_step

    def step_then_interrupt(group):
        take_step(group)
        if stopped.state.step == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    stopped.train_step = step_then_interrupt
    assert fit(stopped, data_dir).status == "interrupted"
    assert stopped.state.step == stop_after
    run = stopped.tracker.run
    stopped.tracker.close()

    resumed = make_trainer(data_dir, tmp_path, "fresh")
    resumed._tracker = ExperimentTracker("tiny", {}, run=run, tensorboard=False)
    resumed.load_checkpoint(load_last(run.checkpoints_dir))
    assert fit(resumed, data_dir).status == "completed"

    assert digest(resumed) == digest(straight)
    assert resumed.state == straight.state
    for log in ("steps_log_path", "metrics_log_path"):
        assert what_was_logged(run, log) == what_was_logged(straight.tracker.run, log)


def what_was_logged(run, log):
    """The lines without what a clock decides."""
    clock = {"time", "patches_per_s", "train_patches_per_s", "seconds"}
    lines = read_jsonl(getattr(run, log))
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def test_steps_logged_after_the_checkpoint_are_logged_once_on_resume(data_dir, tmp_path):
    """A kill leaves steps in the log that no checkpoint holds; they are done, and logged, again."""
    killed = make_trainer(data_dir, tmp_path, epochs=2)
    fit(killed, data_dir)
    killed.tracker.log_step(7, {"loss": 1.0}, epoch=3)
    killed.tracker.close()
    run = killed.tracker.run

    resumed = make_trainer(data_dir, tmp_path, "fresh", epochs=3)
    resumed._tracker = ExperimentTracker("tiny", {}, run=run, tensorboard=False)
    resumed.load_checkpoint(load_last(run.checkpoints_dir))
    fit(resumed, data_dir)
    assert [line["step"] for line in read_jsonl(run.steps_log_path)] == list(range(1, 10))


@pytest.mark.parametrize("scheduler", ["plateau", "one_cycle", "constant"])
def test_schedules_survive_a_resume(data_dir, tmp_path, scheduler):
    straight = make_trainer(data_dir, tmp_path, "a", scheduler=scheduler, epochs=4)
    fit(straight, data_dir)
    part = make_trainer(data_dir, tmp_path, "b", scheduler=scheduler, epochs=4)
    part.settings = dataclasses.replace(part.settings, epochs=2)
    fit(part, data_dir)
    rest = make_trainer(data_dir, tmp_path, "c", scheduler=scheduler, epochs=4)
    rest.load_checkpoint(load_last(part.tracker.run.checkpoints_dir))
    fit(rest, data_dir)
    assert digest(rest) == digest(straight)


def test_another_seed_gives_another_run_and_the_same_seed_the_same(data_dir, tmp_path):
    trainers = [make_trainer(data_dir, tmp_path, seed=seed) for seed in (5, 5, 6)]
    for trainer in trainers:
        fit(trainer, data_dir)
    first, same, other = (digest(trainer) for trainer in trainers)
    assert first == same != other


def test_reader_processes_change_nothing(data_dir, tmp_path):
    digests = []
    for num_workers in (0, 2):
        trainer = make_trainer(data_dir, tmp_path, epochs=2)
        fit(trainer, data_dir, num_workers=num_workers)
        digests.append(digest(trainer))
    assert digests[0] == digests[1]


def test_logging_the_gradient_norm_does_not_clip(data_dir, tmp_path):
    """With a limit far above every norm the run must equal the one without a limit."""
    plain = make_trainer(data_dir, tmp_path)
    fit(plain, data_dir)
    limited = make_trainer(data_dir, tmp_path, clip_grad_norm=1e9)
    fit(limited, data_dir)
    clipped = make_trainer(data_dir, tmp_path, clip_grad_norm=1e-3)
    fit(clipped, data_dir)
    assert digest(plain) == digest(limited) != digest(clipped)


def test_accumulated_batches_give_the_gradient_of_the_whole(data_dir, tmp_path):
    def one_step(batch_size, accumulate):
        model = MLP((3, 96, 96), [8], dropout_rate=0.0, preprocess=Preprocess())
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        settings = TrainerSettings(epochs=1, accumulate_steps=accumulate)
        run = RunDir.create(tmp_path, "run")
        tracker = ExperimentTracker("tiny", {}, run=run, tensorboard=False)
        trainer = Trainer(model, optimizer, settings, tracker=tracker)
        # 96 patches: one step of 96, or one of 40 + 40 + 16, whose sizes differ
        trainer.train_epoch(open_loader(data_dir, "train", batch_size))
        assert trainer.state.step == 1
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    start = MLP((3, 96, 96), [8], dropout_rate=0.0, preprocess=Preprocess()).state_dict()
    assert torch.allclose(one_step(96, 1), one_step(40, 3), atol=1e-6)


def test_training_stops_at_the_first_value_that_is_not_finite(data_dir, tmp_path):
    model = MLP((3, 96, 96), [8], preprocess=Preprocess())
    with torch.no_grad():
        model.get_parameter(next(n for n, _ in model.named_parameters())).fill_(float("nan"))
    trainer = make_trainer(data_dir, tmp_path, model=model)
    with pytest.raises(TrainingError, match=r"epoch 1, step 1, patches .*weights went bad first"):
        fit(trainer, data_dir)
    assert trainer.state.step == 0


def test_a_learning_rate_far_too_high_is_stopped_and_explained(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path, epochs=50)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 1e30
    trainer.scheduler = None
    with pytest.raises(TrainingError, match="went bad first"):
        fit(trainer, data_dir)


def test_early_stopping_keeps_the_best_epoch(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path, epochs=30, early_stopping_patience=2)
    result = fit(trainer, data_dir)
    lines = list(read_jsonl(trainer.tracker.run.metrics_log_path))
    best = max(lines, key=lambda line: line["val_roc_auc"])
    assert result.status == "stopped_early"
    assert result.state.best_epoch == best["epoch"] == len(lines) - 2
    saved = load_best(trainer.tracker.run.checkpoints_dir).state["train"]
    assert saved["best_epoch"] == best["epoch"]


def test_the_best_checkpoint_gives_the_score_that_was_logged(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path, epochs=5, best_metric="val_loss")
    fit(trainer, data_dir)
    lines = list(read_jsonl(trainer.tracker.run.metrics_log_path))
    trainer.model.load_state_dict(load_best(trainer.tracker.run.checkpoints_dir).model_state)
    loss, _, _ = trainer.validate(open_loader(data_dir, "valid"))
    assert loss == pytest.approx(min(line["val_loss"] for line in lines), abs=1e-9)


def test_a_model_that_says_the_same_of_every_patch_is_found_out(data_dir, tmp_path):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2))

        def forward(self, images):
            return self.bias.expand(len(images), 2)

    trainer = make_trainer(data_dir, tmp_path, model=Constant(), epochs=1)
    (finding,) = fit(trainer, data_dir).findings
    assert finding.id == "not-learning"
    assert "same probability" in finding.message


def test_the_course_script_works_as_it_was_written(data_dir, tmp_path):
    from ml_core.data import get_dataloaders
    from ml_core.utils import seed_everything

    config = {
        "experiment_name": "course",
        "seed": 42,
        "data": {"data_path": str(data_dir), "batch_size": 16, "num_workers": 0},
        "training": {"epochs": 2, "learning_rate": 1e-3, "save_dir": str(tmp_path / "results")},
    }
    seed_everything(config["seed"])
    train_loader, val_loader = get_dataloaders(config)
    model = MLP(input_shape=[3, 96, 96], hidden_units=[16], num_classes=2, dropout_rate=0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["training"]["learning_rate"])
    trainer = Trainer(model, optimizer, config, "cpu")
    trainer.fit(train_loader, val_loader)
    loss, accuracy, f1 = trainer.validate(val_loader, 2)
    assert loss > 0
    assert accuracy > 0.5
    assert f1 > 0
    run_dir = tmp_path / "results" / "course"
    assert len(list(read_jsonl(run_dir / "metrics.jsonl"))) == 2
    path = trainer.save_checkpoint(2, loss)
    assert load_checkpoint(path).state["train"]["step"] == trainer.state.step


def test_a_run_killed_after_it_lost_patience_does_not_train_on(data_dir, tmp_path):
    stopped = make_trainer(data_dir, tmp_path, epochs=30, early_stopping_patience=2)
    fit(stopped, data_dir)
    resumed = make_trainer(data_dir, tmp_path, "again", epochs=30, early_stopping_patience=2)
    resumed.load_checkpoint(load_last(stopped.tracker.run.checkpoints_dir))
    assert fit(resumed, data_dir).status == "stopped_early"
    assert resumed.state.step == stopped.state.step


class TellingToStop:
    """The validation split, one patch a batch; a SIGTERM comes with the second, if `armed`."""

    def __init__(self, data_dir):
        self.batches = list(open_loader(data_dir, "valid", batch_size=1))
        self.num_read, self.armed = 0, True

    def __iter__(self):
        for number, batch in enumerate(self.batches):
            if self.armed and number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            self.num_read += 1
            yield batch


def test_a_validation_is_given_up_when_told_to_stop_and_made_when_training_goes_on(
    data_dir, tmp_path
):
    train, valid = open_loader(data_dir, "train"), TellingToStop(data_dir)
    stopped = make_trainer(data_dir, tmp_path, "stopped", epochs=1)
    result = stopped.fit(train, valid)
    assert (result.status, result.told_to_stop) == ("interrupted", True)
    assert valid.num_read <= 2 < len(valid.batches)
    stopped.tracker.close()
    valid.armed = False
    resumed = make_trainer(data_dir, tmp_path, "again", epochs=1)
    resumed.load_checkpoint(load_last(stopped.tracker.run.checkpoints_dir))
    straight = make_trainer(data_dir, tmp_path, "straight", epochs=1)
    metrics = [trainer.fit(train, valid).val_metrics for trainer in (resumed, straight)]
    assert resumed.state.step == stopped.state.step and metrics[0] == metrics[1]
    assert digest(resumed) == digest(straight)


def test_who_was_told_to_stop_too_late_for_this_training_hears_of_it(data_dir, tmp_path):
    trainer = make_trainer(data_dir, tmp_path, epochs=1, early_stopping_patience=1)
    assert not fit(trainer, data_dir).told_to_stop
    late = make_trainer(data_dir, tmp_path, "late", epochs=1)
    late._save = lambda *, best: os.kill(os.getpid(), signal.SIGUSR1)  # the last checkpoint
    result = fit(late, data_dir)
    assert (result.status, result.told_to_stop) == ("completed", True)


class OfTheCourse:
    """A loader of (images, labels) that cannot be told where to begin."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return ((batch.images, batch.labels) for batch in self.loader)


def of_a_part(trainer):
    """Give `trainer` an optimizer over its last two parameters."""
    trainer.optimizer = torch.optim.SGD(list(trainer.model.parameters())[-2:], lr=0.1)
    trainer._step.optimizer = trainer.optimizer
    trainer.scheduler = None


@pytest.mark.parametrize("numerics", ["fast", "elastic"])
def test_gradients_of_what_the_optimizer_leaves_alone_are_forgotten_at_each_step(
    data_dir, tmp_path, numerics
):
    trainer = make_trainer(data_dir, tmp_path, numerics=numerics)
    of_a_part(trainer)
    trainer.augment.set_epoch(1)
    batch = next(iter(open_loader(data_dir, "train")))
    left = next(trainer.model.parameters())
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    norms = []
    for _ in range(2):
        trainer.state.batch = 0  # the same dropout: the same gradient
        trainer.train_step([batch])
        norms.append(float(left.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_a_resumed_training_with_the_loaders_of_the_course_ends_in_the_same_bits(
    data_dir, tmp_path
):
    from ml_core.data import get_dataloaders

    config = {"data": {"data_path": str(data_dir), "batch_size": 32}}
    resume_and_compare(data_dir, tmp_path, lambda: get_dataloaders(config))


def test_a_resumed_training_leaves_out_what_a_foreign_loader_gives_again(data_dir, tmp_path):
    def loaders():
        return OfTheCourse(open_loader(data_dir, "valid")), open_loader(data_dir, "valid")

    resume_and_compare(data_dir, tmp_path, loaders)


def resume_and_compare(data_dir, tmp_path, loaders):
    """Assert that a training stopped after its first step ends as one that was not."""
    straight = make_trainer(data_dir, tmp_path, "straight")
    straight.fit(*loaders())
    stopped = make_trainer(data_dir, tmp_path, "stopped")
    take_step = stopped.train_step

    def step_then_interrupt(group):
        take_step(group)
        os.kill(os.getpid(), signal.SIGINT)

    stopped.train_step = step_then_interrupt
    assert stopped.fit(*loaders()).status == "interrupted"
    resumed = make_trainer(data_dir, tmp_path, "resumed")
    resumed.load_checkpoint(load_last(stopped.tracker.run.checkpoints_dir))
    resumed.fit(*loaders())
    assert resumed.state == straight.state
    assert digest(resumed) == digest(straight)
