"""data.placement: where a training has its patches; what it computes does not depend on it."""

import pytest
import torch
from run_bits import final_bits
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.config.recipe import NOT_THE_RECIPE
from ml_core.data import held_patches
from ml_core.data.pcam import PCAMDataset
from ml_core.errors import ConfigError
from ml_core.evaluation.predictions import Predictions
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.parts.batches_of import patches_of_steps
from ml_core.pipeline.parts.splits import inference_loader, open_split, train_loader
from ml_core.pipeline.parts.throughput import measure_throughput
from ml_core.pipeline.train import resume, train
from ml_core.runs import RunDir
from ml_core.solver.interrupt import StopRequest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("placement") / "data", 94, 70)


@pytest.fixture
def config(folder, tmp_path):
    """A training that leaves patches out, augments, and ends each epoch in a smaller batch."""
    path = write_config(
        tmp_path / "config.yaml",
        folder,
        data={
            "batch_size": 16, "filter_data": True, "max_patches": 90, "on_findings": "ignore",
            "augment": {"stain_jitter": 0.1},
        },
        training={"epochs": 2, "num_threads": 1, "checkpoint_every": 4},
    )  # fmt: skip
    return Config.load(path)


def at(config, placement):
    return config.with_overrides([f"data.placement={placement}"])


def trained(config):
    return RunDir.open(train(config, command="test")["runs"][0]["run"])


@pytest.fixture
def held(monkeypatch):
    """Where each data set that was held is, in turn."""
    places, hold = [], PCAMDataset.hold
    monkeypatch.setattr(
        PCAMDataset, "hold", lambda self, device: places.append(device) or hold(self, device)
    )
    return places


def test_a_training_from_memory_ends_in_the_bits_of_one_from_the_file(config, held):
    from_file = final_bits(trained(config))
    assert held == []
    assert final_bits(trained(at(config, "ram"))) == from_file
    assert held == [CPU, CPU]  # train and valid


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU is needed")
def test_a_training_from_a_gpus_memory_ends_in_the_bits_of_one_from_the_file(config, held):
    runs = [final_bits(trained(at(config, each))) for each in ("file", "ram", "gpu")]
    assert runs[0] == runs[1] == runs[2]
    assert [each.type for each in held] == ["cpu", "cpu", "cuda", "cuda"]


@pytest.mark.parametrize(("first", "then"), [("file", "ram"), ("ram", "file")])
def test_a_run_may_go_on_from_another_place(config, monkeypatch, held, first, then):
    straight = final_bits(trained(config))
    stops = iter([False] * 7 + [True] * 100)
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(stops))
        run = trained(at(config, first))
    assert final_bits(run) != straight
    held.clear()
    resume(run.path, [f"data.placement={then}"], command="test")
    assert final_bits(run) == straight
    assert held == ([CPU, CPU] if then == "ram" else [])


def test_the_place_is_no_part_of_the_recipe():
    assert "data.placement" in NOT_THE_RECIPE


def test_a_split_that_is_gone_through_once_is_read_from_the_file(config, held):
    run = trained(at(config, "ram"))
    logged = final_bits(run)
    held.clear()
    evaluate(run.path)
    assert held == []
    assert final_bits(run) == logged
    assert len(Predictions.load(run.predictions_path("valid"))) == 70


def test_which_patches_a_step_had_is_told_without_reading_any(config, held):
    run = trained(at(config, "ram"))
    held.clear()
    found = patches_of_steps(run, Config.load(run.config_path), [1, 6])
    assert [len(rows) for rows in found.values()] == [16, 10]
    assert held == []


def test_what_is_measured_before_a_training_is_its_own_place(config, held):
    assert measure_throughput(at(config, "ram"), {}).timed_steps > 0
    assert held == [CPU, CPU]


def test_loaders_of_one_data_set_read_it_once(config, held):
    config = at(config, "ram")
    train_set = open_split(config, "train", {})
    for _ in range(2):
        assert len(list(train_loader(config, train_set, CPU))) == 6
        assert len(list(inference_loader(config, train_set, CPU, again=True))) == 1
    assert held == [CPU]


@pytest.mark.parametrize("placement", ["ram", "gpu"])
def test_reader_processes_for_patches_in_memory_are_refused(config, placement):
    with pytest.raises(ConfigError, match=r"Set data\.num_workers to 0, or data\.placement"):
        config.with_overrides([f"data.placement={placement}", "data.num_workers=2"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is needed")
def test_a_gpu_that_is_not_there_is_said_before_a_run_is_made(config):
    with pytest.raises(ConfigError, match=r"computes on a CPU.*Set data\.placement to ram"):
        train(at(config, "gpu"), command="test")
    assert not config.output_dir.exists()


def test_too_little_memory_for_both_splits_is_said_before_a_run_is_made(config, monkeypatch):
    both = 160 * 96 * 96 * 3  # 90 of train, 70 of valid
    room = {"free": both}
    monkeypatch.setattr(held_patches, "free_memory_of", lambda _: room["free"])
    with pytest.raises(ConfigError, match=r"data\.placement is ram, but the 160 patches of train"):
        train(at(config, "ram"), command="test")
    assert not config.output_dir.exists()
    room["free"] = both / held_patches.MOST_OF_FREE + 1
    trained(at(config, "ram"))
