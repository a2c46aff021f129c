"""The newest checkpoints are bad: a run goes on from the newest good one, and never gets stuck."""

import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from run_bits import final_bits
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.checkpoint import (
    MANIFEST_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    files,
    load_last,
)
from ml_core.checkpoint import load_best as load_best_of
from ml_core.config import Config
from ml_core.errors import CheckpointError
from ml_core.pipeline import train as stage
from ml_core.pipeline.train import resume, train
from ml_core.runs import RunDir, RunRecord

pytestmark = pytest.mark.faults

EPOCHS, INTERVAL = 5, 2  # four steps an epoch
FILES = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, MANIFEST_FILE)


class StopAfter:
    """Asks for a stop, as a scheduler does, when an epoch is over."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, epoch, _metrics) -> bool:
        if epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return False


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run that was not stopped, and one that was after its third epoch, of the same config."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("generations")
    data = write_tiny_pcam(folder / "data", 64, 32)
    settings = {"epochs": EPOCHS, "num_threads": 1, "checkpoint_every": INTERVAL}
    path = write_config(folder / "config.yaml", data, training=settings, data={"batch_size": 16})
    config = Config.load(path)
    (straight,) = train(config, command="a test")["runs"]
    with pytest.MonkeyPatch.context() as patch:
        until_third = partial(stage.train_seed, on_epoch=StopAfter(3))
        patch.setattr(stage, "train_seed", until_third)
        (stopped,) = train(config, command="a test")["runs"]
    assert stopped["status"] == "interrupted"
    return final_bits(RunDir(Path(straight["run"]))), Path(stopped["run"])


def newest(run: RunDir) -> list[Path]:
    return sorted(run.checkpoints_dir.glob("step-*"), reverse=True)


def flip_a_bit(path: Path, rng: random.Random) -> None:
    file = path / rng.choice(FILES)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    file = path / rng.choice(FILES)
    os.truncate(file, rng.randrange(file.stat().st_size))


def fill_with_zeros(path: Path, rng: random.Random) -> None:
    for name in FILES:
        file = path / name
        file.write_bytes(bytes(file.stat().st_size))


def lose_a_file(path: Path, rng: random.Random) -> None:
    (path / rng.choice(FILES)).unlink()


def lose_all_files(path: Path, rng: random.Random) -> None:
    shutil.rmtree(path)
    path.mkdir()


def swap_with_an_older_one(path: Path, rng: random.Random) -> None:
    """Put a file of another generation in its place: whole, but not of this checkpoint."""
    older = min(path.parent.glob("step-*"))
    shutil.copy(older / STATE_FILE, path / STATE_FILE)


DAMAGES = (flip_a_bit, cut, fill_with_zeros, lose_a_file, lose_all_files, swap_with_an_older_one)


def test_with_the_newest_one_two_or_three_bad_a_run_ends_in_the_same_bits(
    world, tmp_path, draws, fault
):
    bad = fault(6, "the newest 1, 2 or 3 checkpoints damaged in six ways")
    bits, stopped = world
    rng = random.Random(6)
    for number in range(draws(full=90, short=4)):
        num_bad, damage = number % 3 + 1, DAMAGES[number // 3 % len(DAMAGES)]
        run = RunDir(tmp_path / f"run-{number}")
        shutil.copytree(stopped, run.path, symlinks=True)
        generations = newest(run)
        good = int(generations[num_bad].name[5:])
        for path in generations[:num_bad]:
            damage(path, rng)
        with bad.case(f"{num_bad} bad, {damage.__name__}, draw {number}"):
            if number % 2:  # stopped again at once: what it then saves must not be lost
                again = resume(run.path, command="a test", on_epoch=StopAfter(good // 4 + 1))
                assert again["status"] == "interrupted"
                assert load_last(run.checkpoints_dir).state["train"]["step"] > good
            assert resume(run.path, command="a test")["status"] == "completed"
            assert final_bits(run) == bits, "other bits than those of the run left alone"
            assert len(newest(run)) >= 3
            best = RunRecord.load(run).best["weights_sha256"]
            assert load_best_of(run.checkpoints_dir).weights_sha256 == best
        shutil.rmtree(run.path)


def test_with_every_checkpoint_bad_it_is_said_and_nothing_is_touched(world, tmp_path, fault):
    bad = fault(6, "every checkpoint damaged")
    run = RunDir(tmp_path / "run")
    shutil.copytree(world[1], run.path, symlinks=True)
    for path in newest(run):
        cut(path, random.Random(0))
    before = newest(run)
    with bad.case("all"):
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
                assert resume(run.path, command="a test")["status"] == "completed"
        assert newest(run) == before


def test_without_digests_a_run_goes_on_from_a_damaged_checkpoint_to_other_bits(
    world, tmp_path, monkeypatch, fault
):
    control = fault(24, "no digests: a flipped bit is trained on")
    bits, stopped = world
    run = RunDir(tmp_path / "run")
    shutil.copytree(stopped, run.path, symlinks=True)
    file = newest(run)[0] / MODEL_FILE
    content = bytearray(file.read_bytes())
    content[-2] ^= 1 << 6  # in the exponent of the last weight
    file.write_bytes(content)
    monkeypatch.setattr(files, "_verify", lambda *_: None)
    assert resume(run.path, command="a test")["status"] == "completed"
    with control.case("a flipped bit"):
        assert final_bits(run) != bits
