"""One batch that holds what no patch can: training stops there, says where, and can go on."""

import math
import random
from types import SimpleNamespace

import pytest
from run_bits import final_bits
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.checkpoint import load_last
from ml_core.config import Config
from ml_core.data.loader import PatchLoader
from ml_core.errors import TrainingError
from ml_core.evaluation.spikes import find_spikes
from ml_core.pipeline.train import resume, train
from ml_core.runs import RunDir, RunRecord, read_jsonl

pytestmark = pytest.mark.faults

NUM_TRAIN, BATCH_SIZE, EPOCHS = 96, 16, 3
STEPS_PER_EPOCH = NUM_TRAIN // BATCH_SIZE


class Poison:
    """While `value` is set, the training batch of number `at` (from 1) holds it in one pixel."""

    def __init__(self) -> None:
        self.at = 0
        self.value: float | None = None
        self.pixel: tuple[int | slice, ...] = (0, 0, 0, 0)
        self.index: list[int] = []  # of the poisoned batch, as the loader gave it
        self._num_seen = 0

    def set(self, at: int, value: float, pixel: tuple[int | slice, ...]) -> None:
        self.at, self.value, self.pixel, self.index, self._num_seen = at, value, pixel, [], 0

    def into(self, batch):
        self._num_seen += 1
        if self.value is None or self._num_seen != self.at:
            return batch
        self.index = batch.index.tolist()
        images = batch.images.float()
        images[self.pixel] = self.value
        return batch._replace(images=images)


@pytest.fixture
def poison(monkeypatch):
    """The poison that training's loader puts into its batches."""
    poison, clean = Poison(), PatchLoader.__iter__

    def poisoned(self):
        for batch in clean(self):
            yield poison.into(batch) if self.batch_sampler.shuffle else batch

    monkeypatch.setattr(PatchLoader, "__iter__", poisoned)
    return poison


@pytest.fixture
def config(tmp_path):
    data = write_tiny_pcam(tmp_path / "data", num_train=NUM_TRAIN, num_valid=32)
    training = {"epochs": EPOCHS, "num_threads": 1}
    path = write_config(
        tmp_path / "config.yaml", data, data={"batch_size": BATCH_SIZE}, training=training
    )
    return Config.load(path)


def the_newest(config):
    runs = config.output_dir / config.experiment_name
    return RunDir(max(runs.iterdir(), key=lambda path: path.stat().st_mtime_ns))


def check_stopped(config, poison, error):
    """Assert that the run stopped at the poison, named it, and kept what was good."""
    run, text = the_newest(config), str(error)
    epoch = (poison.at - 1) // STEPS_PER_EPOCH
    assert f"epoch {epoch + 1}" in text and f"step {poison.at}" in text, text
    assert ", ".join(map(str, poison.index[:10])) in text, "the batch is not named"
    assert f"(index {poison.index[poison.pixel[0]]})" in text, "the patch is not named"
    record = RunRecord.load(run)
    assert (record.status, record.error) == ("diverged", text)
    assert "non-finite" in [finding.id for finding in record.findings]
    steps = [line["step"] for line in read_jsonl(run.steps_log_path)]
    assert steps == list(range(1, poison.at)), "a step after the poison was logged"
    if epoch:
        assert load_last(run.checkpoints_dir).state["train"]["step"] == epoch * STEPS_PER_EPOCH
    return run


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_training_stops_at_a_poisoned_batch_and_goes_on_without_it(
    config, poison, value, draws, fault
):
    train(config, command="a test")
    straight = final_bits(the_newest(config))
    batches = fault(10, f"one pixel of one batch is {value:g}")
    rng = random.Random(f"{value:g}")
    for number in range(draws(full=25, short=2)):
        at = rng.randrange(STEPS_PER_EPOCH + 1, EPOCHS * STEPS_PER_EPOCH + 1)
        pixel = (rng.randrange(BATCH_SIZE), rng.randrange(3), rng.randrange(96), rng.randrange(96))
        poison.set(at, value, pixel)
        with batches.case(f"{number}: step {at}, pixel {pixel}"):
            with pytest.raises(TrainingError) as caught:
                train(config, command="a test")
            run = check_stopped(config, poison, caught.value)
            poison.value = None
            assert resume(run.path, command="a test")["status"] == "completed"
            assert final_bits(run) == straight


def test_a_batch_poisoned_before_the_first_checkpoint_is_named_too(config, poison, fault):
    batches = fault(10, "the very first batches are poisoned")
    for at in range(1, STEPS_PER_EPOCH + 1):
        poison.set(at, float("nan"), (at, 0, 0, 0))
        with batches.case(f"step {at}"):
            with pytest.raises(TrainingError) as caught:
                train(config, command="a test")
            check_stopped(config, poison, caught.value)


@pytest.mark.parametrize("level", ["elastic", "portable"])
def test_training_stops_at_a_poisoned_batch_at_every_level(config, poison, level, draws, fault):
    leveled = config.with_overrides([f"training.numerics={level}"])
    train(leveled, command="a test")
    straight = final_bits(the_newest(config))
    batches = fault(10, f"one pixel of one batch is NaN, {level}")
    for at in (STEPS_PER_EPOCH + 2, 2 * STEPS_PER_EPOCH + 1)[: draws(full=2, short=1)]:
        poison.set(at, float("nan"), (5, 0, 0, 0))
        with batches.case(f"step {at}"):
            with pytest.raises(TrainingError) as caught:
                train(leveled, command="a test")
            run = check_stopped(config, poison, caught.value)
            poison.value = None
            assert resume(run.path, command="a test")["status"] == "completed"
            assert final_bits(run) == straight


def test_a_finite_spike_is_found_at_its_step_and_a_checkpoint_before_it_is_kept(
    config, poison, fault
):
    spikes = fault(10, "a finite spike: named by step, checkpoints before it kept")
    # slow, since on these data the loss falls to zero within an epoch otherwise
    longer = config.with_overrides(["training.epochs=12", "optimizer.lr=1.0e-5"])
    at = 11 * STEPS_PER_EPOCH + 2
    poison.set(at, 1e6, (slice(None), 0, 0, 0))  # in every patch, so that some are called wrong
    train(longer, command="a test")
    run = the_newest(config)
    losses = [line["loss"] for line in read_jsonl(run.steps_log_path)]
    with spikes.case(f"step {at}"):
        assert at - 1 in [spike.position for spike in find_spikes(losses)]
        kept = sorted(path.name for path in run.checkpoints_dir.glob("step-*"))
        assert kept[0] < f"step-{at:08d}"


def test_without_the_look_at_the_loss_nothing_is_named(config, poison, monkeypatch, fault):
    blind = SimpleNamespace(isfinite=lambda _: True, inf=math.inf)
    monkeypatch.setattr("ml_core.solver.step.math", blind)
    poison.set(2, float("nan"), (0, 0, 0, 0))
    with pytest.raises(TrainingError, match="weights have diverged") as caught:
        train(config, command="a test")  # found an epoch later, by validation
    with pytest.raises(AssertionError):
        check_stopped(config, poison, caught.value)
    fault(24, "training: the look at loss and gradient").held("poisoned at step 2")
