"""A slow path planted in a real training is named by what is measured, and gone when it is mended.

What is planted takes ten times as long as anything else, so that no noise of the machine decides.
"""

import time

import h5py
import numpy as np
import pytest
from fabricated_benchmark import measured
from fabricated_benchmark import reading as fabricated_reading
from tiny_pcam import make_patches, write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.data.chunked_rows import ChunkedRows
from ml_core.data.flat_rows import FlatRows
from ml_core.data.layout import split_paths
from ml_core.data.pcam import PatchBatch, PCAMDataset
from ml_core.pipeline.benchmarking.judging.bottleneck import judge
from ml_core.pipeline.benchmarking.measuring import end_to_end, reading
from ml_core.pipeline.benchmarking.measuring.end_to_end import measure_end_to_end
from ml_core.pipeline.benchmarking.measuring.reading import measure_reading
from ml_core.pipeline.data_pack import data_pack
from ml_core.pipeline.parts.splits import open_split

ASLEEP_S = 0.1  # for a batch; a step of the tiny model takes a few milliseconds
HANDED_OVER_S = 0.2
TIMES_DECODED = 40
BATCH_SIZE = 32
DECODED_AT_ONCE = 128  # patches of a chunk; a batch has some of each chunk, so 16 times its own


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """Other numbers of readers than the config's are none and one: starting them takes seconds."""
    for module in (reading, end_to_end):
        monkeypatch.setattr(module, "num_cores", lambda: 1)


def tiny_config(folder, data_path, **data):
    """A training whose step is next to nothing: a unit, no augmentation."""
    model = {"hidden_units": [1], "normalization": "none"}
    return Config.load(
        write_config(
            folder / "config.yaml",
            data_path,
            model=model,
            data={"augment": {"dihedral": False}, **data},
        )
    )


def verdict_of(config, budget_s=0.1, read=None):
    """Return the verdict on the real training of `config`, and what it was drawn from.

    `read` stands for what the reader by itself would do, where that is not what is asked.
    """
    file = open_split(config, "train", {}).file
    taken = measured(
        settings={"batch_size": BATCH_SIZE, "num_workers": config.data.num_workers},
        data={"layout": file.layout, "dtype": str(file.dtype)},
        reading=read or measure_reading(config, {}, budget_s=budget_s),
        end_to_end=measure_end_to_end(config, {}, budget_s=budget_s),
        computing=(),
        peak=None,
    )
    return judge(taken), taken


@pytest.fixture
def data(tmp_path):
    return write_tiny_pcam(tmp_path / "data")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(PCAMDataset, "__getitems__", id="data set"),
        pytest.param(FlatRows, "read", id="rows", marks=pytest.mark.slow),
    ],
)
def test_a_sleep_in_the_read_is_waiting_and_gone_without_it(
    tmp_path, data, monkeypatch, owner, name
):
    real = getattr(owner, name)

    def asleep(self, rows):
        time.sleep(ASLEEP_S)
        return real(self, rows)

    config = tiny_config(tmp_path, data)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, asleep)
        verdict, taken = verdict_of(config)
    assert verdict.bound == "waiting", verdict
    assert "neither reads nor computes" in verdict.sentence
    mended, _ = verdict_of(config)
    assert mended.bound != "waiting"
    assert taken.end_to_end.training.median < BATCH_SIZE / ASLEEP_S


def write_gzip(folder, rows_of_chunk, num_patches):
    """Write the tiny data with train compressed, so many patches to a chunk; return the folder."""
    write_tiny_pcam(folder)
    labels = np.arange(num_patches) % 2
    paths = split_paths(folder, "train")
    with h5py.File(paths.x, "w") as file:
        chunks = (rows_of_chunk, 96, 96, 3)
        file.create_dataset("x", data=make_patches(labels), chunks=chunks, compression="gzip")
    with h5py.File(paths.y, "w") as file:
        file["y"] = labels.reshape(-1, 1, 1, 1)
    return folder


def test_one_patch_gzip_chunks_are_decoding_and_packing_is_advised(tmp_path, monkeypatch):
    """Each chunk is decoded as often as makes up for a model that is tiny, and a busy machine."""
    real = ChunkedRows.read

    def thoroughly(self, rows):
        for _ in range(TIMES_DECODED):
            values = real(self, rows)
        return values

    monkeypatch.setattr(ChunkedRows, "read", thoroughly)
    gzipped = write_gzip(tmp_path / "gzipped", rows_of_chunk=1, num_patches=128)
    verdict, _ = verdict_of(tiny_config(tmp_path, gzipped))
    assert verdict.bound == "decoding", verdict
    assert "stored as chunked, gzip uint8" in verdict.sentence
    assert verdict.advice[0].setting.startswith("ml-core data pack")


@pytest.mark.slow
def test_chunks_of_many_patches_are_decoding_and_packing_mends_it(tmp_path):
    gzipped, packed = tmp_path / "gzipped", tmp_path / "packed"
    write_gzip(gzipped, rows_of_chunk=DECODED_AT_ONCE, num_patches=4 * DECODED_AT_ONCE)
    verdict, _ = verdict_of(tiny_config(tmp_path, gzipped))
    assert verdict.bound == "decoding", verdict
    data_pack(gzipped, packed)
    mended, _ = verdict_of(tiny_config(tmp_path, packed))
    assert mended.bound != "decoding"
    assert not any("data pack" in each.setting for each in mended.advice)


def test_readers_in_the_way_are_named_with_the_number_that_would_do(tmp_path, data, monkeypatch):
    """Handing a batch to the training takes a fifth of a second, whatever the machine does."""
    real = PatchBatch.share_memory_

    def slowly(self):
        time.sleep(HANDED_OVER_S)
        real(self)

    monkeypatch.setattr(PatchBatch, "share_memory_", slowly)
    verdict, taken = verdict_of(
        tiny_config(tmp_path, data, num_workers=2), read=fabricated_reading(w2=5_000)
    )
    assert verdict.bound == "workers", verdict
    assert "is lost to 2 readers on 2 cores, where 0 would do" in verdict.sentence
    assert verdict.advice[0].setting == "data.num_workers: 0"
    assert verdict.without == taken.end_to_end.by_workers[0].median


def test_a_sleep_in_the_step_is_the_step(tmp_path, data, monkeypatch):
    from ml_core.solver.step import OptimizerStep

    real = OptimizerStep.take

    def slowly(self, *given, **named):
        time.sleep(ASLEEP_S)
        return real(self, *given, **named)

    monkeypatch.setattr(OptimizerStep, "take", slowly)
    verdict, _ = verdict_of(tiny_config(tmp_path, data))
    assert verdict.bound == "compute"
    assert verdict.sentence.startswith("Computing bounds this training: ")
