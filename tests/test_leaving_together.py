"""Ranks that were told to stop leave together, once rank 0 has saved; and each takes its GPU."""

import contextlib
import os
import signal
import time
from types import SimpleNamespace

import pytest
from ranked_processes import run_ranks
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.distributed import Ranks
from ml_core.errors import ConfigError
from ml_core.pipeline import train as stage
from ml_core.pipeline.parts import ranks as parts
from ml_core.pipeline.parts.device import gpu_of_rank
from ml_core.runs import RunDir, RunRecord
from ml_core.solver import Trainer

INTERRUPTED = {"status": "interrupted"}


def stop_training(ranks, config_path, ends, *, resumed=None):
    """Be told to stop; return whether what rank 0 saves was there when this rank left."""
    saved = config_path.with_name("saved")

    def as_rank_0(*_args, **_options):
        time.sleep(0.5)  # a large checkpoint on a slow disk
        if ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        saved.write_text("whole")
        return INTERRUPTED

    stage.joined_ranks = lambda _: contextlib.nullcontext(ranks)
    stage.pass_gate = lambda *_: SimpleNamespace(exclude={}, hashes={})
    stage.check_data = lambda *_: None
    stage.train_seed = stage._go_on = as_rank_0
    stage._follow = lambda *_: INTERRUPTED
    if resumed is None:
        result = stage.train(Config.load(config_path), command="a test")
    else:
        result = stage.resume(resumed, command="a test")
    return result["status"], saved.exists()


@pytest.fixture
def config_path(tmp_path):
    return write_config(tmp_path / "config.yaml", write_tiny_pcam(tmp_path / "data"))


def test_nobody_leaves_before_rank_0_has_saved(config_path):
    assert run_ranks(3, stop_training, config_path, "well") == [("interrupted", True)] * 3


def resume_training(ranks, config_path, path):
    return stop_training(ranks, config_path, "well", resumed=path)


def test_nor_where_a_run_is_gone_on_with(config_path, tmp_path):
    run = RunDir.create(tmp_path, "run")
    RunRecord(experiment_name="tiny", seed=42, command="a test", status="interrupted").save(run)
    run.config_path.write_text(config_path.read_text())
    left = run_ranks(2, resume_training, config_path, run.path)
    assert left == [("interrupted", True)] * 2


def train_and_tell_the_second_late(ranks, config_path):
    """Return what each rank says of a stop that only rank 1 heard, at the last checkpoint."""
    stage.joined_ranks = lambda _: contextlib.nullcontext(ranks)
    real = Trainer._save

    def save(trainer, *, best):
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        real(trainer, best=best)

    Trainer._save = save
    elastic = ["training.numerics=elastic", "training.num_threads=1", "training.epochs=1"]
    result = stage.train(Config.load(config_path, elastic), command="a test")
    return result["status"], result["runs"][0]["told_to_stop"]


def test_what_one_rank_heard_too_late_for_the_training_all_know(config_path):
    told = run_ranks(2, train_and_tell_the_second_late, config_path)
    assert told == [("completed", True)] * 2


def test_a_rank_0_that_is_killed_meanwhile_makes_no_error_of_the_others_good_end(config_path):
    gone, left = run_ranks(2, stop_training, config_path, "killed")
    assert (gone, left) == (None, ("interrupted", False))


@pytest.mark.parametrize(
    ("local_rank", "num_gpus", "gpu"),
    [
        (0, 4, 0),
        (3, 4, 3),
        (3, 1, 0),  # Slurm showed this task its own GPU only
        (5, 4, 1),  # more ranks than GPUs: nccl will say that it cannot
    ],
)
def test_each_rank_of_a_machine_takes_a_gpu_of_its_own(local_rank, num_gpus, gpu):
    assert gpu_of_rank("cuda", local_rank, num_gpus) == gpu
    assert gpu_of_rank("auto", local_rank, num_gpus) == gpu


def test_ranks_that_would_all_take_one_gpu_are_refused():
    with pytest.raises(ConfigError, match=r"training\.device is cuda:1, .* Set it to cuda"):
        gpu_of_rank("cuda:1", 0, 4)


@pytest.mark.parametrize(("world_size", "done"), [(2, ["gpu 1", "nccl"]), (1, ["nccl"])])
def test_the_gpu_is_taken_before_nccl_starts(config_path, monkeypatch, world_size, done):
    """There is no GPU here: what torch is asked, and in which order, is all that is tested."""
    calls = []

    @contextlib.contextmanager
    def process_group(ranks, *, timeout_s, backend):
        calls.append(backend)
        yield ranks

    ranks = Ranks(0, world_size, local_rank=world_size - 1)
    monkeypatch.setattr(parts, "ranks_from_environment", lambda: ranks)
    monkeypatch.setattr(parts, "choose_device", lambda _: parts.torch.device("cuda"))
    monkeypatch.setattr(parts, "process_group", process_group)
    monkeypatch.setattr(parts.torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(parts.torch.cuda, "set_device", lambda gpu: calls.append(f"gpu {gpu}"))
    settings = ("numerics=elastic", "num_threads=1", "device=cuda")
    config = Config.load(config_path, [f"training.{each}" for each in settings])
    with parts.joined_ranks(config):
        assert calls == done
