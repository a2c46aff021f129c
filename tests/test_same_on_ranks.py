"""Ranks on several machines: one that would compute another result is refused, by its number."""

import contextlib
import dataclasses
import shutil

import h5py
import numpy as np
import pytest
from ranked_processes import run_ranks
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config, DataConfig
from ml_core.data.layout import split_paths
from ml_core.distributed import Ranks
from ml_core.errors import RankError, RunError
from ml_core.pipeline import train as stage
from ml_core.pipeline.parts import ranks as parts
from ml_core.pipeline.parts import same_on_ranks

ELASTIC = ["training.numerics=elastic", "training.num_threads=1", "training.epochs=1"]


def train_as_two_machines(ranks, config_path, other, copy):
    """Train as the only rank of a machine; on the second one `other` is not as on the first."""
    if not ranks.is_first and copy is not None:  # what lies there under the same name
        DataConfig.files_dir = property(lambda _: copy)
    if not ranks.is_first and other == "code":
        same_on_ranks.source_digest = lambda: "5a" * 32
    if not ranks.is_first and other == "processor":
        real = same_on_ranks.numerics_record
        same_on_ranks.numerics_record = lambda *about: real(*about) | {"processor": {"name": "old"}}
    alone_here = dataclasses.replace(ranks, local_rank=0)
    stage.joined_ranks = lambda _: contextlib.nullcontext(alone_here)
    return stage.train(Config.load(config_path, ELASTIC), command="a test")["status"]


@pytest.fixture
def data(tmp_path):
    return write_tiny_pcam(tmp_path / "data")


@pytest.fixture
def config_path(tmp_path, data):
    return write_config(tmp_path / "config.yaml", data)


@pytest.fixture
def copy(tmp_path, data):
    return shutil.copytree(data, tmp_path / "copy")


def test_ranks_that_have_the_same_train_together(config_path, copy):
    assert run_ranks(2, train_as_two_machines, config_path, None, copy) == ["completed"] * 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("code", "has other code than rank 0: the SHA-256 of .* is 5a5a5a5a5a5a"),
        (
            "processor",
            "the processor is old, and .* at rank 0, so the weights would depend",
        ),
    ],
)
def test_a_rank_of_other_code_or_machine_is_refused_by_name(config_path, other, said):
    refused(run_ranks(2, train_as_two_machines, config_path, other, None), said)


def test_a_rank_whose_machine_has_other_data_is_refused_by_name(config_path, copy):
    with h5py.File(split_paths(copy, "train").x, "r+") as file:
        file["x"][3] = file["x"][3] ^ np.uint8(1)  # of the same size
    said = f"reads other data than rank 0: the SHA-256 of {split_paths(copy, 'train').x} is"
    refused(run_ranks(2, train_as_two_machines, config_path, None, copy), said)


def refused(ended, said):
    first, second = ended
    assert isinstance(first, RankError)
    with pytest.raises(RunError, match=f"rank 1 on .*{said}"):
        raise second


@pytest.mark.parametrize(("num_ranks", "idle"), [(4, 0), (6, 2)])
def test_ranks_that_no_batch_has_work_for_are_told_at_the_start(
    config_path, monkeypatch, caplog, num_ranks, idle
):
    sizes = ["data.batch_size=31", "training.micro_batch=8"]
    monkeypatch.setattr(parts, "ranks_from_environment", lambda: Ranks(0, num_ranks))
    monkeypatch.setattr(parts, "process_group", lambda *_, **__: contextlib.nullcontext())
    with parts.joined_ranks(Config.load(config_path, [*ELASTIC, *sizes])):
        assert (f"{idle} of them will never train. Start 4, or fewer" in caplog.text) == bool(idle)
