"""Copies on a local disk: made once whoever races, checked, and never half there."""

import dataclasses
import json
import multiprocessing
import os
import time

import numpy as np
import pytest

from ml_core.data.transfer import stage as stage_module
from ml_core.data.transfer.stage import stage
from ml_core.data.versions.manifest import build_manifest
from ml_core.errors import DataError

FILES = {
    "train_x.h5.bin": np.random.default_rng(0).bytes(300_000),
    "train_y.csv": b"0\n1\n" * 500,
    "sub/notes.txt": b"notes",
}
HIDDEN = {".ml-core.lock", ".staged.json"}


def write(folder, files=FILES):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder):
    """Return what lies in `folder` by name, without the lock and the stamp."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if path.is_file() and name not in HIDDEN
    }


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "source")


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "node" / "pcam"


@pytest.fixture
def copies(monkeypatch):
    """Names of the files that were copied."""
    seen = []
    plain = stage_module._copy
    monkeypatch.setattr(
        stage_module, "_copy", lambda *files: (seen.append(files[0].name), plain(*files))[1]
    )
    return seen


def record(folder):
    manifest = build_manifest(folder)
    manifest.save(folder / "dataset.json")
    return manifest


def test_a_copy_is_the_same_and_is_made_once(source, dest, copies):
    first = stage(source, dest)
    assert contents(dest) == FILES
    assert first.path == dest and set(first.copied) == set(FILES) and first.reused == ()
    again = stage(source, dest)
    assert again.copied == () and set(again.reused) == set(FILES)
    assert len(copies) == 3


def test_with_a_manifest_its_files_and_itself_are_copied(source, dest):
    record(source)
    (source / "later.txt").write_text("not recorded")
    stage(source, dest)
    assert set(contents(dest)) == {*FILES, "dataset.json"}


def test_an_archive_is_not_copied_beside_what_it_holds(source, dest):
    (source / "train_y.csv.gz").write_bytes(b"1")
    (source / "alone.csv.gz").write_bytes(b"2")
    stage(source, dest)
    assert set(contents(dest)) == {*FILES, "alone.csv.gz"}


def test_a_copy_that_was_touched_is_made_again(source, dest, copies):
    stage(source, dest)
    copies.clear()
    (dest / "train_y.csv").write_bytes(b"1\n0\n" * 500)
    (dest / "sub" / "notes.txt").unlink()
    stage(source, dest)
    assert sorted(copies) == ["notes.txt", "train_y.csv"] and contents(dest) == FILES


def test_a_source_that_was_only_touched_is_read_once_more_and_not_copied(source, dest, copies):
    stage(source, dest)
    copies.clear()
    os.utime(source / "train_y.csv", (1, 1))
    assert stage(source, dest).copied == ()
    before = (dest / ".staged.json").read_bytes()
    assert stage(source, dest).copied == () and copies == []
    assert (dest / ".staged.json").read_bytes() == before


def change(source):
    (source / "train_y.csv").write_bytes(b"1\n1\n" * 500)


def remove(source):
    (source / "train_y.csv").unlink()


@pytest.mark.parametrize("alter", [change, remove])
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_source_that_changed_since_does_not_replace_what_jobs_may_be_reading(
    source, dest, alter, is_recorded
):
    if is_recorded:
        record(source)
    stage(source, dest)
    alter(source)
    if is_recorded:
        record(source)
    with pytest.raises(DataError, match=r"holds other data than .*: train_y\.csv\. Jobs may"):
        stage(source, dest)
    assert {**contents(dest), "dataset.json": 0} == {**FILES, "dataset.json": 0}


def test_a_new_note_in_the_manifest_is_copied(source, dest, copies):
    record(source)
    stage(source, dest)
    copies.clear()
    build_manifest(source, note="new").save(source / "dataset.json")
    stage(source, dest)
    assert copies == ["dataset.json"]
    assert json.loads((dest / "dataset.json").read_text())["note"] == "new"


def test_a_manifest_that_says_otherwise_since_is_not_passed_over(source, dest):
    manifest = record(source)
    stage(source, dest)
    files = dict(manifest.files)
    files["train_y.csv"] = dataclasses.replace(files["train_y.csv"], sha256="0" * 64)
    dataclasses.replace(manifest, files=files).save(source / "dataset.json")
    with pytest.raises(DataError, match=r"train_y\.csv is not what dataset\.json says"):
        stage(source, dest)


def test_a_copy_that_is_whole_needs_no_lock(source, dest, monkeypatch):
    """So that the copy of another user, in whose folder none can be taken, will do."""
    stage(source, dest)
    monkeypatch.setattr(stage_module, "locked", None)
    assert set(stage(source, dest).reused) == set(FILES)


def test_files_of_others_are_not_overwritten(source, dest, tmp_path):
    write(dest, {"train_y.csv": b"mine"})
    with pytest.raises(DataError, match=r"holds other data than .*: train_y\.csv"):
        stage(source, dest)
    assert contents(dest) == {"train_y.csv": b"mine"}


def test_a_folder_is_the_copy_of_one_source(source, dest, tmp_path):
    stage(source, dest)
    other = write(tmp_path / "other")
    with pytest.raises(DataError, match=rf"holds a copy of {source}\. Name another"):
        stage(other, dest)


def test_a_source_that_is_not_what_its_manifest_says_is_refused(source, dest):
    record(source)
    change(source)
    with pytest.raises(DataError, match=r"train_y\.csv is not what dataset\.json says"):
        stage(source, dest)
    assert "train_y.csv" not in contents(dest)
    remove(source)
    with pytest.raises(DataError, match=r"misses files .*: train_y\.csv"):
        stage(source, dest)


def test_a_source_that_changes_while_it_is_copied_is_refused(source, dest, monkeypatch):
    plain = stage_module._Writer.update

    def meddle(self, block):
        with open(source / "train_x.h5.bin", "ab") as file:
            file.write(b"more")
        plain(self, block)

    monkeypatch.setattr(stage_module._Writer, "update", meddle)
    with pytest.raises(DataError, match="was changed while it was read"):
        stage(source, dest)
    assert "train_x.h5.bin" not in contents(dest)
    assert not [name for name in contents(dest) if name.endswith(".tmp")]


def test_a_disk_that_reads_back_otherwise_is_found_out(source, dest, monkeypatch):
    plain = stage_module._Writer.update
    monkeypatch.setattr(
        stage_module._Writer, "update", lambda self, block: plain(self, b"\0" + block[1:])
    )
    with pytest.raises(DataError, match="reads back otherwise"):
        stage(source, dest)
    assert contents(dest) == {}


def test_too_little_space_is_found_before_anything_is_written(source, small_disk):
    with pytest.raises(DataError, match=r"bytes free, but 302,005 are to be copied"):
        stage(source, small_disk)
    assert contents(small_disk) == {}


def test_a_disk_that_fills_meanwhile_keeps_nothing_half(source, small_disk, monkeypatch):
    monkeypatch.setattr(stage_module, "_check_space", lambda *_: None)
    with pytest.raises(DataError, match=r"train_x\.h5\.bin cannot be written: No space left"):
        stage(source, small_disk)
    assert contents(small_disk).items() <= FILES.items()
    # once there is room, it goes on
    (source / "train_x.h5.bin").write_bytes(b"small")
    stage(source, small_disk)
    assert contents(small_disk) == {**FILES, "train_x.h5.bin": b"small"}


def test_places_that_cannot_be_are_named(source, tmp_path):
    with pytest.raises(DataError, match="lie within each other"):
        stage(source, source / "copy")
    with pytest.raises(DataError, match="lie within each other"):
        stage(source, source)
    with pytest.raises(DataError, match="lie within each other"):
        stage(source, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file cannot be written: File exists"):
        stage(source, tmp_path / "file")
    with pytest.raises(DataError, match="is not a folder"):
        stage(tmp_path / "nowhere", tmp_path / "dest")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file to stage"):
        stage(tmp_path / "empty", tmp_path / "dest")


@pytest.mark.parametrize("text", ["", "[]", '{"files": [1]}', '{"files": {"train_y.csv": 7}}'])
def test_a_damaged_stamp_costs_a_comparison_and_nothing_else(source, dest, text):
    stage(source, dest)
    (dest / ".staged.json").write_text(text)
    assert len(stage(source, dest).copied) == 3
    assert stage(source, dest).copied == () and contents(dest) == FILES


# --- several processes ---------------------------------------------------------------------------


def run_job(source, dest, log, ready, pause_s):
    """Stage in a process of its own, writing to `log` what it does, each half block slowly."""
    copy, update = stage_module._copy, stage_module._Writer.update

    def say(word):
        with open(log, "a") as file:
            file.write(word + "\n")

    def copy_and_say(source, dest, sha256):
        say("copy " + source.name)
        return copy(source, dest, sha256)

    def write_slowly(self, block):
        half = len(block) // 2
        update(self, block[:half])
        say("half")
        time.sleep(pause_s)
        update(self, block[half:])

    stage_module._copy, stage_module._Writer.update = copy_and_say, write_slowly
    say("ready")
    wait_for(ready.exists)
    say(f"done {len(stage(source, dest).copied)}")


@pytest.fixture
def start(source, dest, tmp_path):
    """Start a job that stages; returns its process."""
    (tmp_path / "log").touch()
    started = []

    def start(pause_s=0.0):
        arguments = (source, dest, tmp_path / "log", tmp_path / "ready", pause_s)
        # forked: a fresh interpreter would take seconds to load
        process = multiprocessing.get_context("fork").Process(target=run_job, args=arguments)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def wait_for(condition, timeout_s=30):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def end_of(process):
    process.join(30)
    return process.exitcode


def test_jobs_that_race_copy_once(source, dest, start, tmp_path):
    jobs = [start(pause_s=0.05) for _ in range(4)]
    wait_for(lambda: (tmp_path / "log").read_text().count("ready") == 4)
    (tmp_path / "ready").touch()
    assert [end_of(job) for job in jobs] == [0] * 4
    said = (tmp_path / "log").read_text().split("\n")
    assert sorted(line for line in said if line.startswith("copy")) == [
        "copy notes.txt", "copy train_x.h5.bin", "copy train_y.csv",
    ]  # fmt: skip
    assert sorted(line for line in said if line.startswith("done")) == ["done 0"] * 3 + ["done 3"]
    assert contents(dest) == FILES


def test_when_the_copying_job_is_killed_the_waiting_one_goes_on(source, dest, start, tmp_path):
    log = tmp_path / "log"
    (tmp_path / "ready").touch()
    first = start(pause_s=60)
    wait_for(lambda: "half" in log.read_text())
    partial = [name for name in contents(dest) if name.endswith(".tmp")]
    assert len(partial) == 1  # the file that is being written
    second = start()
    time.sleep(0.3)
    assert second.is_alive()
    first.kill()
    assert end_of(second) == 0
    assert contents(dest) == FILES  # and nothing that the killed job left


def test_what_a_killed_job_finished_is_not_copied_again(source, dest, start, tmp_path):
    log = tmp_path / "log"
    (tmp_path / "ready").touch()
    first = start(pause_s=0.4)
    wait_for(lambda: log.read_text().count("half") == 2)  # in the middle of the second file
    first.kill()
    first.join()
    log.write_text("")
    assert end_of(start()) == 0
    assert log.read_text().count("copy") == 2 and contents(dest) == FILES


def test_jobs_only_wait_for_those_of_their_own_folder(source, dest, start, tmp_path):
    (tmp_path / "ready").touch()
    start(pause_s=60)
    wait_for(lambda: "half" in (tmp_path / "log").read_text())
    assert len(stage(source, tmp_path / "another").copied) == 3
