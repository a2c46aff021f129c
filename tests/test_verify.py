"""What differs from a manifest or the official files, in which rows; what is not read again."""

import dataclasses
import hashlib
import os
import re
import subprocess

import h5py
import numpy as np
import pytest
from tiny_pcam import write_split

from ml_core.data.layout import SPLITS, split_paths
from ml_core.data.versions import digest_cache
from ml_core.data.versions.digest_cache import DigestCache
from ml_core.data.versions.manifest import Manifest, build_manifest
from ml_core.data.versions.official import OFFICIAL_FILES
from ml_core.data.versions.verify import compare_with_manifest, compare_with_official, find_swap
from ml_core.errors import DataError

NUM = 5000
PATCHES = np.random.default_rng(0).integers(0, 256, (NUM, 4, 4, 3), dtype=np.uint8)
LABELS = (np.arange(NUM) % 3 == 0).astype(np.int64)


def write_all(folder):
    for number, split in enumerate(SPLITS):
        write_split(folder, split, np.roll(PATCHES, number), np.roll(LABELS, number))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_all(tmp_path / "data")


@pytest.fixture
def manifest(folder):
    return build_manifest(folder)


@pytest.fixture
def compare(folder, manifest):
    """Return the verdicts by name."""

    def compare(cache=None):
        verdicts = compare_with_manifest(folder, manifest, cache or DigestCache(None))
        return {verdict.name: verdict for verdict in verdicts}

    return compare


TRAIN_X, TRAIN_Y = (path.name for path in dataclasses.astuple(split_paths("", "train"))[:2])
VALID_X, VALID_Y = (path.name for path in dataclasses.astuple(split_paths("", "valid"))[:2])
TEST_X, TEST_Y = (path.name for path in dataclasses.astuple(split_paths("", "test"))[:2])


def test_the_same_data_are_right(compare):
    assert {verdict.status for verdict in compare().values()} == {"ok"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([0], r"rows 0 to 1,023 \(1 group of 1,024\) differ"),
        ([1023, 1024], r"rows 0 to 2,047 \(2 groups"),
        ([1024, 4999], r"rows 1,024 to 2,047, 4,096 to 4,999 \(2 groups"),
    ],
)
def test_a_changed_file_says_which_rows(folder, compare, rows, said):
    with h5py.File(folder / TRAIN_X, "r+") as file:
        for row in rows:
            file["x"][row] = 255 - file["x"][row]
    verdict = compare()[TRAIN_X]
    assert verdict.status == "changed" and verdict.is_wrong
    assert re.search(said, verdict.detail)


def test_changed_labels_say_their_rows_too(folder, compare):
    labels = LABELS.copy()
    labels[3000] ^= 1
    write_split(folder, "train", PATCHES, labels)
    found = compare()
    assert "'y': rows 2,048 to 3,071" in found[TRAIN_Y].detail
    assert found[TRAIN_X].status == "ok"


def test_many_stretches_are_counted_not_listed(tmp_path):
    data = np.zeros((20 * 1024, 1), np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = data
    manifest = build_manifest(tmp_path)
    data[:: 2 * 1024] = 1
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = data
    (verdict,) = compare_with_manifest(tmp_path, manifest, DigestCache(None))
    assert "8,192 to 9,215 and 5 more stretches (10 groups" in verdict.detail


def test_lost_rows_another_type_and_another_key_are_said(folder, compare):
    write_split(folder, "train", PATCHES[:4000], LABELS)
    write_split(folder, "valid", np.roll(PATCHES, 1).astype(np.float32), LABELS)
    with h5py.File(folder / TEST_X, "w") as file:
        file["images"] = np.roll(PATCHES, 2)
    found = compare()
    assert "'x': 4,000 rows instead of 5,000, rows 3,072 to 3,999" in found[TRAIN_X].detail
    assert "float32 (5000, 4, 4, 3) instead of uint8 (5000, 4, 4, 3)" in found[VALID_X].detail
    assert found[TEST_X].detail == "'images' is new; 'x' is gone"


def test_a_file_stored_in_another_way_holds_the_same_data(folder, compare):
    with h5py.File(folder / TRAIN_X, "w") as file:
        file.create_dataset("x", data=PATCHES, compression="gzip")
    verdict = compare()[TRAIN_X]
    assert verdict.status == "repacked" and not verdict.is_wrong


def test_everything_that_is_wrong_is_found_not_only_the_first(folder, compare):
    (folder / TRAIN_X).unlink()
    (folder / TRAIN_Y).write_bytes(b"")
    (folder / VALID_X).write_bytes((folder / VALID_X).read_bytes()[:-5])
    (folder / "truth.csv").write_text("extra")
    (folder / "camelyonpatch_level_2_split_test_meta.csv").write_text("extra")
    found = compare()
    assert {name: (each.status, each.is_wrong) for name, each in found.items()} == {
        TRAIN_X: ("missing", True),
        TRAIN_Y: ("unreadable", True),
        VALID_X: ("unreadable", True),
        VALID_Y: ("ok", False),
        TEST_X: ("ok", False),
        TEST_Y: ("ok", False),
        "truth.csv": ("extra", False),
        "camelyonpatch_level_2_split_test_meta.csv": ("extra", True),
    }


def exchange(folder, first, second):
    (folder / first).rename(folder / "aside")
    (folder / second).rename(folder / first)
    (folder / "aside").rename(folder / second)


def test_swapped_splits_are_recognised(folder, compare):
    exchange(folder, VALID_X, TEST_X)
    found = compare()
    assert found[VALID_X].content_of == TEST_X and found[VALID_X].is_wrong
    assert find_swap(list(found.values())) == ("valid", "test")


def test_one_split_copied_over_another_is_no_swap(folder, compare):
    (folder / VALID_X).write_bytes((folder / TEST_X).read_bytes())
    found = compare()
    assert found[VALID_X].content_of == TEST_X
    assert find_swap(list(found.values())) is None


def test_a_renamed_file_is_recognised(folder, compare):
    (folder / TRAIN_X).rename(folder / "train.h5")
    found = compare()
    assert found[TRAIN_X].status == "missing"
    assert found["train.h5"].detail == f"is {TRAIN_X} under another name; rename it"


# --- official checksums --------------------------------------------------------------------------


def as_official(folder):
    """Return records that call the files of `folder` official."""
    records = []
    for file in OFFICIAL_FILES:
        path = folder / file.name
        md5 = hashlib.md5(path.read_bytes() if path.exists() else b"").hexdigest()
        records.append(dataclasses.replace(file, md5=md5))
    return records


def official_verdicts(folder, records):
    return {each.name: each for each in compare_with_official(folder, DigestCache(None), records)}


def test_official_files_are_recognised_without_a_manifest(folder):
    found = official_verdicts(folder, as_official(folder))
    assert [each.status for each in found.values()] == ["ok"] * 6 + ["absent"] * 3


def test_splits_that_nobody_downloaded_may_be_absent_but_half_a_split_not(folder):
    records = as_official(folder)
    for name in (TEST_X, TEST_Y, VALID_Y):
        (folder / name).unlink()
    found = official_verdicts(folder, records)
    assert found[TEST_X].status == found[TEST_Y].status == "absent"
    assert found[VALID_Y].status == "missing" and found[VALID_Y].is_wrong


def test_swapped_changed_and_renamed_official_files_are_recognised(folder):
    records = as_official(folder)
    exchange(folder, VALID_X, TEST_X)
    with h5py.File(folder / TRAIN_X, "r+") as file:
        file["x"][0] = 0
    (folder / TRAIN_Y).rename(folder / "labels.h5")
    found = official_verdicts(folder, records)
    assert find_swap(list(found.values())) == ("valid", "test")
    assert "not the official file" in found[TRAIN_X].detail
    assert found["labels.h5"].content_of == TRAIN_Y and found["labels.h5"].is_wrong
    assert found[TRAIN_Y].status == "missing"


def test_archives_are_compared_too(folder):
    records = as_official(folder)
    (folder / f"{TRAIN_X}.gz").write_bytes(b"damaged")
    assert official_verdicts(folder, records)[f"{TRAIN_X}.gz"].status == "changed"


def test_a_folder_of_other_data_is_told_to_be_recorded(tmp_path):
    (tmp_path / "cats.csv").write_text("cats")
    with pytest.raises(DataError, match="record them first: ml-core data manifest"):
        compare_with_official(tmp_path, DigestCache(None))


# --- what is not read again ----------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read whole."""
    seen = []
    plain = digest_cache.hash_through
    monkeypatch.setattr(
        digest_cache,
        "hash_through",
        lambda path, algo: (seen.append(path.name), plain(path, algo))[1],
    )
    return seen


@pytest.fixture
def aged(folder):
    """The data folder with files of yesterday: a file written just now is never remembered."""
    age(folder)
    return folder


def age(folder, seconds=86400):
    for path in folder.iterdir():
        before = path.stat().st_mtime_ns - seconds * 10**9
        os.utime(path, ns=(before, before))


def test_what_was_verified_and_not_touched_is_not_read_again(aged, compare, reads, tmp_path):
    state = tmp_path / "state.json"
    compare(DigestCache(state))
    assert len(reads) == 6
    compare(DigestCache(state))
    assert len(reads) == 6
    compare(DigestCache(state, fresh=True))
    assert len(reads) == 12


def test_a_verify_that_was_stopped_goes_on_where_it_was(
    aged, compare, reads, tmp_path, monkeypatch
):
    plain = digest_cache.hash_through

    def stop(path, algorithm):
        if len(reads) == 3:
            raise KeyboardInterrupt
        return plain(path, algorithm)

    with monkeypatch.context() as patch:
        patch.setattr(digest_cache, "hash_through", stop)
        with pytest.raises(KeyboardInterrupt):
            compare(DigestCache(tmp_path / "state.json"))
    first = list(reads)
    compare(DigestCache(tmp_path / "state.json"))
    assert len(first) == 3 and sorted(reads) == sorted(
        [TRAIN_X, TRAIN_Y, VALID_X, VALID_Y, TEST_X, TEST_Y]
    )


@pytest.mark.parametrize("touch", ["content", "time", "replaced"])
def test_what_was_touched_is_read_again(aged, compare, reads, tmp_path, touch):
    state = tmp_path / "state.json"
    compare(DigestCache(state))
    reads.clear()
    path = aged / TRAIN_X
    before = path.stat()
    if touch == "content":
        with h5py.File(path, "r+") as file:
            file["x"][0] = 0
    elif touch == "time":
        os.utime(path, ns=(0, before.st_mtime_ns + 1))
    else:
        data = path.read_bytes()
        path.rename(aged / ".old")  # so that its inode is not given away again
        path.write_bytes(data)
        os.utime(path, ns=(0, before.st_mtime_ns))
    found = compare(DigestCache(state))
    assert reads == [TRAIN_X]
    assert found[TRAIN_X].status == ("changed" if touch == "content" else "ok")


def test_a_file_written_a_moment_ago_is_not_remembered(folder, compare, reads, tmp_path):
    """Written again within the clock's tick, it would look the same."""
    state = tmp_path / "state.json"
    compare(DigestCache(state))
    compare(DigestCache(state))
    assert len(reads) == 12


def test_a_new_manifest_is_compared_with_what_is_remembered(
    aged, compare, reads, tmp_path, manifest
):
    state = tmp_path / "state.json"
    compare(DigestCache(state))
    wrong = dict(manifest.files)
    wrong[TRAIN_X] = dataclasses.replace(wrong[TRAIN_X], sha256="0" * 64, content="0" * 64)
    verdicts = compare_with_manifest(aged, Manifest(wrong), DigestCache(state))
    assert [each.name for each in verdicts if each.is_wrong] == [TRAIN_X]


def test_what_is_remembered_of_one_folder_is_not_taken_for_another(
    aged, compare, tmp_path, manifest, reads
):
    state = tmp_path / "state.json"
    compare(DigestCache(state))
    other = write_all(tmp_path / "other")
    age(other)
    compare_with_manifest(other, manifest, DigestCache(state))
    assert len(reads) == 12
    compare(DigestCache(state))  # and neither displaces the other
    assert len(reads) == 12


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": {"a": 3}}', "\0"])
def test_a_damaged_memory_is_no_memory(aged, compare, tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    assert {each.status for each in compare(DigestCache(tmp_path / "state.json")).values()} == {
        "ok"
    }


@pytest.fixture
def read_only(tmp_path):
    """A data folder on a file system that nobody can write."""
    place = tmp_path / "read_only"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)],
            check=True, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a read-only file system needs the right to mount a tmpfs")
    write_all(place)
    age(place)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_folder_is_verified_and_what_is_lost_said_once(read_only, manifest, caplog):
    cache = DigestCache(read_only / "state.json")
    verdicts = compare_with_manifest(read_only, manifest, cache)
    assert {each.status for each in verdicts} == {"ok"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be written (Read-only file system)" in caplog.text
