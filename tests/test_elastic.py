"""One training on any number of ranks, changed in the middle of an epoch: the same bits."""

import itertools
import subprocess
import sys

import pytest
from ranked_processes import finish_cli, start_cli
from ranked_training import (
    STEPS_PER_EPOCH,
    bits_of,
    only_run,
    said,
    train,
    train_until,
    write_case,
    write_data,
)

from ml_core.checkpoint import load_last

pytestmark = pytest.mark.slow  # run by `make test-levels`


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    """The bits of the elastic run of one rank that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    bits = bits_of(train(1, folder, write_case(folder, data)))
    assert [line["step"] for line in bits[0][0]] == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    return bits


def test_two_ranks_stopped_in_mid_epoch_and_gone_on_alone_have_the_bits_of_one(
    straight, data, tmp_path
):
    step = STEPS_PER_EPOCH + 3  # after a validation that the ranks share
    run = train_until(step, 2, tmp_path, write_case(tmp_path, data), asked=1)
    assert 0 < load_last(run.checkpoints_dir).state["train"]["batch"] < STEPS_PER_EPOCH
    assert bits_of(train(1, tmp_path, "--resume", run.path)) == straight


@pytest.mark.parametrize("world_size", [2, 3, 4, 5])  # with 5 one rank never has a micro-batch
def test_any_number_of_ranks_has_the_bits_of_one(straight, data, tmp_path, world_size):
    assert bits_of(train(world_size, tmp_path, write_case(tmp_path, data))) == straight


@pytest.mark.parametrize("worlds", list(itertools.permutations([1, 2, 4])))
def test_ranks_changed_twice_in_mid_epoch_change_no_bit(straight, data, tmp_path, worlds):
    first, second, third = worlds
    run = train_until(4, first, tmp_path, write_case(tmp_path, data), asked=first - 1)
    run = train_until(STEPS_PER_EPOCH + 3, second, tmp_path, "--resume", run.path)
    assert bits_of(train(third, tmp_path, "--resume", run.path)) == straight


def test_as_torchrun_starts_them_the_ranks_have_the_bits_of_one(straight, data, tmp_path):
    config = write_case(tmp_path, data)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "ml_core", "train", str(config)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bits_of(only_run(tmp_path)) == straight
    assert done.stderr.count("epoch 1/2") + done.stdout.count("epoch 1/2") == 1  # rank 0 speaks


@pytest.mark.parametrize(
    "training", [{"accumulate_steps": 2}, {"micro_batch": 8}, {"numerics": "portable"}]
)
def test_accumulated_and_uncut_batches_and_portable_are_elastic_too(data, tmp_path, training):
    found = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        found.append(bits_of(train(world_size, folder, write_case(folder, data, **training))))
    assert found[0] == found[1]


def test_another_micro_batch_is_another_recipe(straight, data, tmp_path):
    assert bits_of(train(1, tmp_path, write_case(tmp_path, data, micro_batch=4))) != straight


def test_fast_is_refused_on_several_ranks_before_a_directory_is_made(data, tmp_path):
    config = write_case(tmp_path, data, numerics="fast")
    assert finish_cli(start_cli(2, ["train", config], tmp_path)) == [2, 2]
    assert "2 ranks were started, but training.numerics is fast" in said(tmp_path, 1)[0]
    assert not (tmp_path / "runs").exists()


def test_the_main_job_of_two_ranks_is_scored_and_reported_once(data, tmp_path):
    """Rank 1 has nothing more to do when the training has ended."""
    assert finish_cli(start_cli(2, ["run", write_case(tmp_path, data), "--json"], tmp_path)) == [
        0,
        0,
    ]
    run = only_run(tmp_path)
    assert run.metrics_path.is_file() and run.report_path.is_file()
