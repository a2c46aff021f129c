"""Data files that are cut short, deleted or replaced while a training reads them."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_pcam import make_patches, write_config, write_split, write_tiny_pcam
from torch.utils.data import DataLoader

from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.data.pcam import PCAMDataset
from ml_core.data.worker_faults import in_plain_words
from ml_core.errors import DataError

pytestmark = pytest.mark.faults

NUM = 96


def cut_short(path, rng):
    os.truncate(path, int(rng.integers(0, path.stat().st_size)))


def delete(path, rng):
    path.unlink()


def replace(path, rng):
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes()[::-1])
    copy.replace(path)


def overwrite(path, rng):
    with path.open("r+b") as file:
        file.seek(int(rng.integers(3000, path.stat().st_size)))
        file.write(b"\0" * 100)


CHANGES = {"cut short": cut_short, "deleted": delete, "replaced": replace, "overwritten": overwrite}


def read_epochs(paths, num_workers, after, do, num_epochs=3):
    """Read epochs of batches, `do` something after batch `after`; return what was read, what said.

    What was read: (index, patches) of each batch.
    """
    dataset = PCAMDataset(paths.x, paths.y)
    loader = build_loader(dataset, 8, shuffle=True, seed=1, num_workers=num_workers)
    came = []
    try:
        for epoch in range(num_epochs):
            loader.batch_sampler.set_epoch(epoch)
            batches = DataLoader.__iter__(loader)
            for batch in in_plain_words(batches) if num_workers else batches:
                came.append((batch.index.numpy(), batch.images.permute(0, 2, 3, 1).numpy()))
                if len(came) == after:
                    do(paths.x)
    except DataError as error:
        return came, str(error)
    return came, ""


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read_ends_in_an_error_and_no_wrong_batch(
    tmp_path, change, num_workers, draws, fault
):
    vanish = fault(7, f"the data file {change} while it is read")
    rng = np.random.default_rng(0)
    labels = np.arange(NUM) % 2
    patches = make_patches(labels)
    for number in range(draws(12, 2)):
        folder = tmp_path / str(number)
        write_split(folder, "train", patches, labels)
        after = int(rng.integers(1, 20))
        with vanish.case(f"after batch {after}, {num_workers} workers"):
            came, said = read_epochs(
                split_paths(folder, "train"),
                num_workers,
                after,
                lambda path: CHANGES[change](path, rng),
            )
            assert "split_train_x.h5" in said, said or "no error at all"
            assert "Traceback" not in said, said
            for index, images in came:
                assert np.array_equal(images, patches[index]), "other values than were written"


MAPPED = """
import os, sys
import numpy as np
from ml_core.data.patch_file import PatchFile
import h5py
with h5py.File(sys.argv[1]) as file:
    offset, shape = file["x"].id.get_offset(), file["x"].shape
mapped = np.memmap(sys.argv[1], np.uint8, "r", offset, shape)
file = PatchFile(sys.argv[1])
rows = np.arange(len(file))
file.read(rows)
os.truncate(sys.argv[1], 4096)
print("cut", flush=True)
{read}
"""
BY_MAP, BY_READING = "np.take(mapped, rows, axis=0)", "file.read(rows)"


def test_a_map_of_a_file_that_is_cut_short_kills_the_process(tmp_path, fault):
    control = fault(24, "patches read through a map: SIGBUS")
    labels = np.arange(NUM) % 2
    for read, wanted in ((BY_MAP, -signal.SIGBUS), (BY_READING, 1)):
        write_split(tmp_path, "train", make_patches(labels), labels)
        path = str(split_paths(tmp_path, "train").x)
        command = [sys.executable, "-c", MAPPED.format(read=read), path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with control.case(read):
            assert done.stdout == "cut\n"
            assert done.returncode == wanted, done.stderr[-300:]
    assert "is truncated, 4,096 bytes" in done.stderr


@pytest.mark.parametrize("change", ["cut short", "deleted"])
def test_a_training_whose_data_vanish_stops_in_words(tmp_path, change, fault):
    vanish = fault(7, f"the data file {change} under `ml-core train`")
    folder = write_tiny_pcam(tmp_path / "data")
    config = write_config(tmp_path / "config.yaml", folder, training={"epochs": 100_000})
    command = [sys.executable, "-m", "ml_core", "train", str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as training:
        wait_for_epoch(tmp_path / "runs", training)
        CHANGES[change](split_paths(folder, "train").x, np.random.default_rng(0))
        said = training.communicate(timeout=60)[0]
    with vanish.case(change):
        assert training.returncode == 2, said[-2000:]
        assert "Traceback" not in said
        assert re.search(r"split_train_x\.h5 (is truncated|was deleted)", said), said[-2000:]


def wait_for_epoch(runs, training):
    deadline = time.monotonic() + 60
    while not list(runs.glob("*/*/checkpoints/step-*")):
        assert training.poll() is None, training.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
