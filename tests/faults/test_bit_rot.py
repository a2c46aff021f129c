"""One bit flips on the disk: it is seen before anything is made of it, and the place is named."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest
import torch
from tiny_pcam import make_patches, write_split

from ml_core.checkpoint import load_checkpoint, load_last, save_checkpoint
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.data.versions.digest_cache import DigestCache
from ml_core.data.versions.digests import ROWS_PER_GROUP, digest_as_read
from ml_core.data.versions.manifest import MANIFEST_NAME, Manifest, build_manifest
from ml_core.data.versions.recorded import check_recorded, describe_recorded_rows
from ml_core.data.versions.verify import compare_with_manifest
from ml_core.errors import CheckpointError, DataError, RunError
from ml_core.reproducibility import data_digests
from ml_core.runs import read_jsonl
from ml_core.tracking.log_file import LogFile, LogReader

pytestmark = pytest.mark.faults


def flip(path, rng):
    """Flip one bit of `path` and leave its times as they were, as a disk does; return its byte."""
    found = path.stat()
    at = int(rng.integers(found.st_size))
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << int(rng.integers(8))]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    return at


def test_a_flipped_bit_in_a_checkpoint_is_seen_and_the_one_before_is_used(tmp_path, draws, fault):
    rot = fault(5, "one bit of a checkpoint")
    directory = tmp_path / "checkpoints"
    model = torch.nn.Linear(20, 10)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 20)).sum().backward()
    optimizer.step()
    for step in (1, 2):
        save_checkpoint(
            directory, step, model=model, model_spec={"name": "linear"}, optimizer=optimizer,
            state={"step": step}, best=False,
        )  # fmt: skip
    whole = tmp_path / "whole"
    shutil.copytree(directory, whole, symlinks=True)
    rng = np.random.default_rng(5)
    names = sorted(path.name for path in (directory / "step-00000002").iterdir())
    sizes = np.array([(directory / "step-00000002" / name).stat().st_size for name in names])
    for number in range(draws(1000, 100)):
        name = names[rng.choice(len(names), p=sizes / sizes.sum())]
        damaged = directory / "step-00000002" / name
        at = flip(damaged, rng)
        with rot.case(f"flip {number}, {name} byte {at}"):
            with pytest.raises(CheckpointError, match="step-00000002"):
                load_checkpoint(damaged.parent)
            assert load_last(directory).state == {"step": 1}
        shutil.copy2(whole / "step-00000002" / name, damaged)
    assert load_last(directory).state == {"step": 2}


@pytest.fixture
def recorded(tmp_path):
    """A folder of 3,000 patches in a flat file, with its manifest; the record of a run on it."""
    patches = np.random.default_rng(0).integers(0, 256, (3000, 6, 6, 3), dtype=np.uint8)
    folder = tmp_path / "data"
    write_split(folder, "train", patches, np.arange(len(patches)) % 2)
    build_manifest(folder).save(folder / MANIFEST_NAME)
    x = split_paths(folder, "train").x
    return folder, json.loads(json.dumps(data_digests({"train_x": (x, digest_as_read(x))})))


def offset_of(path):
    with h5py.File(path) as file:
        return file["x"].id.get_offset()


def said_of(path, caplog):
    """Return the error or the warning that reading `path` beside its manifest gives."""
    caplog.clear()
    try:
        check_recorded([(path, digest_as_read(path))])
    except DataError as error:
        return str(error)
    return caplog.text


def unchanged(path, values):
    try:
        return np.array_equal(PatchFile(path).read(np.arange(3000)), values)
    except DataError:
        return True


def test_a_flipped_bit_in_a_patch_file_is_seen_and_its_rows_are_named(
    recorded, draws, fault, caplog
):
    """By the folder's manifest at the start of a training, by the run's own record at a resume."""
    rot = fault(5, "one bit of an HDF5 file, beside a manifest")
    resumed = fault(5, "one bit of an HDF5 file, in the record of a run")
    folder, record = recorded
    x = split_paths(folder, "train").x
    content, offset = x.read_bytes(), offset_of(x)
    row_bytes = 6 * 6 * 3
    values = PatchFile(x).read(np.arange(3000))
    rng = np.random.default_rng(5)
    for number in range(draws(1000, 60)):
        at = flip(x, rng)
        rows = None
        if offset <= at < offset + 3000 * row_bytes:
            first = (at - offset) // row_bytes // ROWS_PER_GROUP * ROWS_PER_GROUP
            rows = f"rows {first:,} to {min(first + ROWS_PER_GROUP, 3000) - 1:,}"
        with rot.case(f"flip {number}, byte {at}"):
            said = said_of(x, caplog)
            assert str(x) in said, "not detected"
            if rows is None:  # in HDF5's own structures, some of which no value depends on
                assert "differ" in said or "cannot be read" in said or unchanged(x, values)
            else:
                assert f"'x': {rows} (1 group of 1,024) differ" in said
        with resumed.case(f"flip {number}, byte {at}"):
            then = record["files"]["train_x"]
            try:
                found = digest_as_read(x)
            except DataError as error:
                assert "split_train_x.h5" in str(error)
            else:
                assert found.sha256 != then["sha256"]
                assert rows is None or describe_recorded_rows(then, found, "x").startswith(rows)
        x.write_bytes(content)
    check_recorded([(x, digest_as_read(x))])


def test_a_digest_that_is_remembered_hides_no_flipped_bit_from_a_training(recorded, fault):
    """`data verify` may remember digests and says how to ask anew; a training reads every byte."""
    rot = fault(5, "one bit of an HDF5 file whose digest is remembered")
    folder, _ = recorded
    x = split_paths(folder, "train").x
    os.utime(x, ns=(10**18, 10**18))  # long ago, so that its digest may be remembered
    manifest = Manifest.load(folder / MANIFEST_NAME)
    memory = folder.parent / "digests.json"
    compare_with_manifest(folder, manifest, DigestCache(memory))
    with x.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(x, ns=(10**18, 10**18))
    with rot.case("size, times and inode as they were"):
        stale = compare_with_manifest(folder, manifest, DigestCache(memory))
        assert not any(verdict.is_wrong for verdict in stale), "the control: nothing is remembered"
        fresh = compare_with_manifest(folder, manifest, DigestCache(memory, fresh=True))
        assert [verdict.name for verdict in fresh if verdict.is_wrong] == [x.name]
        with pytest.raises(DataError, match="rows 2,048 to 2,999"):
            check_recorded([(x, digest_as_read(x))])


def test_without_a_record_a_flipped_bit_of_a_flat_file_is_read_as_it_is(recorded, fault):
    control = fault(24, "no manifest beside the data: a flipped bit is not seen")
    folder, _ = recorded
    (folder / MANIFEST_NAME).unlink()
    x = split_paths(folder, "train").x
    before = PatchFile(x).read(np.arange(3000))
    with x.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([int(before[-1, -1, -1, -1]) ^ 1]))
    with control.case("the last byte"):
        check_recorded([(x, digest_as_read(x))])
        assert (PatchFile(x).read(np.arange(3000)) != before).sum() == 1


def test_the_same_values_in_another_storage_are_no_rot(recorded, caplog):
    folder, _ = recorded
    x = split_paths(folder, "train").x
    patches = PatchFile(x).read(np.arange(3000))
    with h5py.File(x, "w") as file:
        file.create_dataset("x", data=patches, chunks=(100, 6, 6, 3), compression="gzip")
    assert "its values are, every one" in said_of(x, caplog)


def test_a_file_that_no_manifest_names_is_refused(recorded):
    folder, _ = recorded
    write_split(folder, "valid", make_patches([0, 1]), np.array([0, 1]))
    x = split_paths(folder, "valid").x
    with pytest.raises(DataError, match=r"split_valid_x\.h5 is not in .*dataset\.json"):
        check_recorded([(x, digest_as_read(x))])


def test_a_flipped_bit_in_an_event_log_is_seen_and_its_line_is_named(tmp_path, draws, fault):
    rot = fault(5, "one bit of an event log or a study's journal")
    path = tmp_path / "steps.jsonl"
    log = LogFile(path)
    for step in range(1, 41):
        log.append({"step": step, "epoch": 1, "loss": 0.7 / step, "grad_norm": 1.5 * step})
    log.close()
    content = path.read_bytes()
    written = list(read_jsonl(path))
    rng = np.random.default_rng(5)
    for number in range(draws(1000, 100)):
        at = flip(path, rng)
        line = content[:at].count(b"\n") + 1
        with rot.case(f"flip {number}, byte {at} of line {line}"):
            for read in (read_jsonl, LogReader):
                assert is_seen(read, path, written, line), f"{read.__name__} let it through"
        path.write_bytes(content)


def is_seen(read, path, written, line):
    """Whether reading says so, naming file and line; a torn end is what a crash may leave."""
    try:
        found = list(read(path))
    except RunError as error:
        said = str(error)
        return path.name in said and any(f"line {each}" in said for each in (line, line + 1))
    return found == written[:-1] and line == len(written)
