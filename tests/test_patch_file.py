"""PatchFile: the same patches from every way of storing them, and a DataError for every damage."""

import fcntl
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from ml_core.data.layout import load_labels
from ml_core.data.patch_file import PatchFile, evenly_spaced
from ml_core.data.value_range import ValueRange, establish_value_range
from ml_core.data.versions.digests import digest_as_read
from ml_core.errors import DataError

NUM = 24
ROWS = np.array([17, 3, 3, 0, 23, 11, 4])  # any order, one repeated


@pytest.fixture
def patches():
    return np.random.default_rng(0).integers(0, 256, (NUM, 96, 96, 3), dtype=np.uint8)


def store(path, data, **options):
    with h5py.File(path, "w", userblock_size=options.pop("userblock_size", 0)) as file:
        file.create_dataset("x", data=data, **options)
    return path


LAYOUTS = {
    "contiguous": ({}, True),
    "contiguous after a user block": ({"userblock_size": 512}, True),
    "one patch per chunk": ({"chunks": (1, 96, 96, 3)}, False),
    "five patches per chunk": ({"chunks": (5, 96, 96, 3)}, False),
    "chunks across a patch": ({"chunks": (7, 40, 50, 2)}, False),
    "gzip": ({"compression": "gzip", "compression_opts": 1}, False),
    "gzip, shuffled, with checksums": (
        {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (4, 96, 96, 3)},
        False,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_patches(tmp_path, patches, layout):
    options, is_flat = LAYOUTS[layout]
    file = PatchFile(store(tmp_path / "x.h5", patches, **options))
    assert file.is_flat == is_flat
    assert file.shape == (NUM, 96, 96, 3) and len(file) == NUM
    assert np.array_equal(file.read(ROWS), patches[ROWS])
    assert np.array_equal(file.read(np.array([], dtype=np.int64)), patches[:0])


@pytest.mark.parametrize("kind", ["compact", "external", "virtual"])
def test_patches_that_are_not_one_range_of_the_file_are_read_by_hdf5(tmp_path, patches, kind):
    few = patches[:2]  # compact data lie in the header, which has room for 64 KiB
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if kind == "compact":
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(few.shape)
            dataset = h5py.h5d.create(file.id, b"x", h5py.h5t.STD_U8LE, space, properties)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, few)
        elif kind == "external":
            piece = (tmp_path / "x.raw", 0, h5py.h5f.UNLIMITED)
            file.create_dataset("x", data=few, external=[piece])
        else:
            layout = h5py.VirtualLayout(few.shape, "u1")
            layout[:] = h5py.VirtualSource(file.create_dataset("source", data=few))
            file.create_virtual_dataset("x", layout)
    patch_file = PatchFile(tmp_path / "x.h5")
    assert patch_file.layout == kind and not patch_file.is_flat
    assert np.array_equal(patch_file.read(np.array([1, 0])), few[::-1])


STORED = {
    "float32 in 0..255": (lambda p: p.astype(np.float32), "0..255"),
    "float64 in 0..255": (lambda p: p.astype(np.float64), "0..255"),
    "big-endian float32 in 0..255": (lambda p: p.astype(">f4"), "0..255"),
    "float32 in 0..1": (lambda p: (p / 255).astype(np.float32), "0..1"),
    "float16 in 0..1": (lambda p: (p / 255).astype(np.float16), "0..1"),
    "int64 in 0..255": (lambda p: p.astype(np.int64), "0..255"),
    "uint16 in 0..255": (lambda p: p.astype(np.uint16), "0..255"),
    "uint16 in 0..65535": (lambda p: p.astype(np.uint16) * 257, "0..65535"),
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("chunks", [None, (5, 96, 96, 3)])
def test_every_dtype_and_range_is_read_as_the_same_grey_levels(tmp_path, patches, stored, chunks):
    convert, value_range = STORED[stored]
    file = PatchFile(store(tmp_path / "x.h5", convert(patches), chunks=chunks))
    assert str(file.value_range) == value_range
    levels = file.read(ROWS)
    assert levels.dtype == np.uint8
    assert np.array_equal(levels, patches[ROWS])


@pytest.mark.parametrize("convert", [lambda p: p, lambda p: p.astype(np.float32)])
@pytest.mark.parametrize("chunks", [None, (5, 96, 96, 3)])
def test_no_rows_are_no_patches(tmp_path, patches, convert, chunks):
    file = PatchFile(store(tmp_path / "x.h5", convert(patches), chunks=chunks))
    assert file.read(np.array([], np.int64)).shape == (0, 96, 96, 3)


def test_blocks_give_every_wanted_row_once_and_stay_small(tmp_path, patches, monkeypatch):
    monkeypatch.setattr("ml_core.data.patch_file._BLOCK_BYTES", 5 * 96 * 96 * 3)
    for chunks in (None, (2, 96, 96, 3)):
        file = PatchFile(store(tmp_path / "x.h5", patches, chunks=chunks))
        wanted = np.array([0, 1, 4, 5, 6, 13, 20, 21, 22, 23])
        blocks = list(file.blocks(wanted))
        assert np.array_equal(np.concatenate([rows for rows, _ in blocks]), wanted)
        assert np.array_equal(np.concatenate([raw for _, raw in blocks]), patches[wanted])
        assert max(len(rows) for rows, _ in blocks) <= 5


def test_a_small_block_at_1e5_and_blank_patches_do_not_decide_the_range(patches):
    stored = patches.astype(np.float32)
    stored[::3, :5, :5] = 1e5  # a third of the patches
    stored[1], stored[2], stored[4, 0, 0] = 0, 255, np.nan
    assert establish_value_range(stored, "x") == ValueRange(255)
    unit = patches.astype(np.float32) / 255
    unit[::3, :5, :5] = 1e5
    assert establish_value_range(unit, "x") == ValueRange(1)


UNKNOWN = {
    "standardised": (lambda p: (p - 128.0) / 64, "below zero"),
    "-1..1": (lambda p: p / 127.5 - 1, "below zero"),
    "all black": (lambda p: p * 0.0, "all of them are black"),
    "all NaN": (lambda p: p * np.nan, "no finite value"),
    "0..2": (lambda p: p / 127.5, "none of these ranges"),
    "12 bits": (lambda p: p.astype(np.uint16) * 15, "none of these ranges"),
    "int32 beyond 255": (lambda p: p.astype(np.int32) * 257, "none of these ranges"),
    "integers 0 and 1": (lambda p: (p > 99).astype(np.int16), "none of these ranges"),
    "half 0..1, half 0..255": (
        lambda p: np.where(np.arange(NUM)[:, None, None, None] % 2, p, p / 255),
        "none of these ranges",
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_unknown_value_range_is_refused_with_what_was_seen(tmp_path, patches, kind):
    convert, seen = UNKNOWN[kind]
    path = store(tmp_path / "train_x.h5", convert(patches))
    with pytest.raises(DataError, match=seen) as error:
        PatchFile(path)
    assert "train_x.h5" in str(error.value)


def test_values_out_of_range_are_clipped_and_said_once(tmp_path, patches, caplog):
    stored = patches.astype(np.float32)
    stored[3, 0, 0] = 1e5
    file = PatchFile(store(tmp_path / "x.h5", stored))
    with caplog.at_level(logging.WARNING, "ml_core.data"):
        levels = file.read(np.array([2, 3]))
        file.read(np.array([3]))
    assert np.array_equal(levels[1, 0, 0], [255, 255, 255])
    assert np.array_equal(levels[0], patches[2])
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "3 values" in message and "patch 3" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_naming_file_and_row(tmp_path, patches, value):
    stored = patches.astype(np.float32)
    stored[11, 40, 40, 1] = value
    file = PatchFile(store(tmp_path / "valid_x.h5", stored))
    file.read(np.array([10, 12]))
    with pytest.raises(DataError, match=r"valid_x\.h5: patch 11 holds NaN or Inf"):
        file.read(np.array([10, 11]))


def test_a_missing_file_names_the_nearest_there_is(tmp_path, patches):
    store(tmp_path / "camelyonpatch_level_2_split_valid_x.h5", patches)
    with pytest.raises(DataError, match="nearest names there: camelyonpatch_level_2_split_valid"):
        PatchFile(tmp_path / "camelyonpatch_level_2_split_vaild_x.h5")
    with pytest.raises(DataError, match="no folder"):
        PatchFile(tmp_path / "nowhere" / "x.h5")
    with pytest.raises(DataError, match="is a folder"):
        PatchFile(tmp_path)


def test_a_wrong_key_lists_the_keys_there_are(tmp_path, patches):
    path = store(tmp_path / "x.h5", patches)
    with pytest.raises(DataError, match="no data set 'X'; it has: x"):
        PatchFile(path, key="X")


NOT_HDF5 = {
    "empty": (b"", "is empty"),
    "text": (b"<html>404 not found</html>", "not an HDF5 file"),
    "zeros": (bytes(4096), "starts with zeros"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "gunzip"),
    "a signature and nothing else": (b"\x89HDF\r\n\x1a\n", "truncated or damaged"),
}


@pytest.mark.parametrize("kind", NOT_HDF5)
def test_a_file_that_is_not_hdf5_is_an_error_saying_what_it_is(tmp_path, kind):
    content, said = NOT_HDF5[kind]
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        PatchFile(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("chunks", [None, (4, 96, 96, 3)])
def test_a_truncated_file_is_an_error(tmp_path, patches, kept, chunks):
    path = store(tmp_path / "x.h5", patches, chunks=chunks)
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(DataError, match="truncated"):
        PatchFile(path)


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def replace(path):
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def overwrite(path):
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"other")


CHANGES = {
    "cut short": (cut_short, "truncated|cannot be read"),
    "deleted": (Path.unlink, "deleted or replaced|is missing"),
    "replaced": (replace, "deleted or replaced"),
    "overwritten in place": (overwrite, "written to, or touched"),
    "touched": (Path.touch, "written to, or touched"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("chunks", [None, (5, 96, 96, 3)])
@pytest.mark.parametrize("is_being_read", [True, False])
def test_a_file_that_changes_after_it_was_found_is_an_error_and_not_a_crash(
    tmp_path, patches, change, chunks, is_being_read
):
    do, said = CHANGES[change]
    path = store(tmp_path / "x.h5", patches, chunks=chunks)
    file = PatchFile(path)
    if is_being_read:
        file.read(ROWS)
    do(path)
    with pytest.raises(DataError, match=said) as error:
        file.read(ROWS)
    assert "x.h5" in str(error.value)


@pytest.mark.parametrize("chunks", [None, (5, 96, 96, 3)])
def test_a_batch_stays_what_it_was_while_others_are_read(tmp_path, patches, chunks):
    file = PatchFile(store(tmp_path / "x.h5", patches, chunks=chunks))
    wanted = [np.sort(np.random.default_rng(i).permutation(NUM)[:8]) for i in range(40)]
    held = [file.read(rows)[:, 10:20] for rows in wanted]  # views, as a crop would hold
    for rows, batch in zip(wanted, held, strict=True):
        assert np.array_equal(batch, patches[rows, 10:20])


def test_memory_does_not_grow_with_the_batches_that_were_read(tmp_path, patches):
    file = PatchFile(store(tmp_path / "x.h5", patches))
    file.read(np.arange(NUM))
    before = anonymous_bytes()
    for _ in range(300):
        file.read(np.arange(NUM))
    assert anonymous_bytes() - before < 5 * patches.nbytes


def anonymous_bytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.parametrize("chunks", [None, (5, 96, 96, 3)])
@pytest.mark.parametrize("rows", [[0, NUM], [-1, 3]])
def test_a_row_that_is_not_in_the_file_is_refused_and_not_read_from_beyond(
    tmp_path, patches, chunks, rows
):
    file = PatchFile(store(tmp_path / "x.h5", patches, chunks=chunks))
    with pytest.raises(IndexError, match="of 24"):
        file.read(np.array(rows))


def test_a_chunk_that_was_never_written_is_refused_and_not_read_as_black(tmp_path, patches):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        x = file.create_dataset("x", patches.shape, "u1", chunks=(4, 96, 96, 3))
        x[:8], x[12:] = patches[:8], patches[12:]
    with pytest.raises(DataError, match="1 of its 6 chunks were never written"):
        PatchFile(tmp_path / "x.h5")


def test_patches_none_of_which_were_written_are_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (NUM, 96, 96, 3), "u1")
    with pytest.raises(DataError, match="nothing was ever written"):
        PatchFile(tmp_path / "x.h5")


def test_labels_that_were_never_written_are_refused_and_not_read_as_normal(tmp_path):
    with h5py.File(tmp_path / "y.h5", "w") as file:
        y = file.create_dataset("y", (NUM, 1), "u1", chunks=(6, 1))
        y[:12] = 1
    with pytest.raises(DataError, match="2 of its 4 chunks were never written"):
        load_labels(tmp_path / "y.h5")


def test_black_patches_that_were_written_are_patches(tmp_path):
    black = np.zeros((NUM, 96, 96, 3), np.uint8)
    for chunks in (None, (5, 96, 96, 3)):
        file = PatchFile(store(tmp_path / "x.h5", black, chunks=chunks))
        assert not file.read(ROWS).any()


def test_a_virtual_data_set_whose_source_is_missing_is_refused(tmp_path, patches):
    store(tmp_path / "source.h5", patches)
    layout = h5py.VirtualLayout(patches.shape, "u1")
    layout[:] = h5py.VirtualSource("source.h5", "x", patches.shape)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    assert np.array_equal(PatchFile(tmp_path / "x.h5").read(ROWS), patches[ROWS])
    (tmp_path / "source.h5").unlink()
    with pytest.raises(DataError, match=r"source\.h5, which cannot be read"):
        PatchFile(tmp_path / "x.h5")


@pytest.mark.parametrize("what", ["removed", "replaced", "cut short"])
@pytest.mark.parametrize("kind", ["virtual", "external"])
def test_values_in_another_file_that_changes_while_it_is_read_are_an_error(
    tmp_path, patches, kind, what
):
    behind = tmp_path / "behind"
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if kind == "virtual":
            store(behind, patches)
            layout = h5py.VirtualLayout(patches.shape, "u1")
            layout[:] = h5py.VirtualSource("behind", "x", patches.shape)
            file.create_virtual_dataset("x", layout)
        else:
            piece = (behind, 0, h5py.h5f.UNLIMITED)
            file.create_dataset("x", data=patches, external=[piece])
    patch_file = PatchFile(tmp_path / "x.h5")
    assert np.array_equal(patch_file.read(ROWS), patches[ROWS])
    content = behind.read_bytes()
    behind.unlink()
    if what != "removed":
        behind.write_bytes(content if what == "replaced" else content[: len(content) // 2])
    with pytest.raises(DataError, match="behind"):
        patch_file.read(ROWS)


def test_a_file_replaced_between_its_opening_and_the_first_read_is_an_error(
    tmp_path, patches, monkeypatch
):
    path, other = store(tmp_path / "x.h5", patches), store(tmp_path / "other.h5", patches[::-1])

    def replaced_meanwhile(*_):
        os.replace(other, path)
        return []

    monkeypatch.setattr("ml_core.data.patch_file.files_behind", replaced_meanwhile)
    file = PatchFile(path)
    with pytest.raises(DataError, match="deleted or replaced"):
        file.read(ROWS)


def test_training_refuses_values_that_lie_in_other_files(tmp_path, patches):
    store(tmp_path / "source.h5", patches)
    layout = h5py.VirtualLayout(patches.shape, "u1")
    layout[:] = h5py.VirtualSource("source.h5", "x", patches.shape)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    with pytest.raises(DataError, match=r"'x' lie in .*source\.h5, .*ml-core data pack"):
        digest_as_read(tmp_path / "x.h5")


def test_external_values_that_are_cut_short_are_refused(tmp_path, patches):
    raw = tmp_path / "x.raw"
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=patches, external=[(raw, 0, h5py.h5f.UNLIMITED)])
    cut_short(raw)
    with pytest.raises(DataError, match="have 331,776 bytes of 663,552"):
        PatchFile(tmp_path / "x.h5")
    raw.unlink()
    with pytest.raises(DataError, match=r"x\.raw, which is missing"):
        PatchFile(tmp_path / "x.h5")


def test_a_chunk_whose_recorded_size_cannot_be_is_refused(tmp_path, patches):
    path = store(tmp_path / "x.h5", patches, chunks=(4, 96, 96, 3), fletcher32=True)
    size = (4 * 96 * 96 * 3 + 4).to_bytes(4, "little")
    content = path.read_bytes()
    at = content.index(size, content.index(b"TREE", 1000))  # a key of the tree of chunks
    path.write_bytes(content[:at] + (2).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(DataError, match="index of its chunks names places or sizes"):
        PatchFile(path)


def test_a_file_that_is_locked_says_so_where_locks_are_asked_for(tmp_path, patches):
    path = store(tmp_path / "x.h5", patches)
    code = f"from ml_core.data.patch_file import PatchFile; PatchFile({str(path)!r})"
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        PatchFile(path)  # no lock is asked for
        asked = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert "is locked by a process that writes it" in asked.stderr
    assert "HDF5_USE_FILE_LOCKING" in asked.stderr


def test_a_file_whose_writer_was_killed_says_so(tmp_path, patches):
    path = tmp_path / "x.h5"
    code = (
        "import h5py, os, numpy as np\n"
        f"f = h5py.File({str(path)!r}, 'w', libver='latest')\n"
        "f['x'] = np.zeros((4, 8, 8, 3), 'u1'); f.flush(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    with pytest.raises(DataError, match="was not closed by the program that wrote it"):
        PatchFile(path)


def test_damage_inside_a_compressed_file_is_an_error_naming_the_rows(tmp_path, patches):
    path = store(
        tmp_path / "x.h5", patches, chunks=(4, 96, 96, 3), compression="gzip", fletcher32=True
    )
    with h5py.File(path) as raw:
        chunk = raw["x"].id.get_chunk_info(2)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset + 100)
        raw.write(b"damage")
    file = PatchFile(path)
    file.read(np.arange(8))
    with pytest.raises(DataError, match="patches 8 to 9 cannot be read"):
        file.read(np.arange(10))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((4, 96, 96), np.uint8), r"\(N, H, W, 3\)"),
        (np.zeros((4, 3, 96, 96), np.uint8), r"\(N, H, W, 3\)"),
        (np.zeros((0, 96, 96, 3), np.uint8), "holds no patch"),
        (np.zeros((4, 96, 96, 3), np.complex64), "not pixels"),
        (np.array(b"text"), "not pixels"),
    ],
)
def test_a_data_set_that_is_not_patches_is_refused(tmp_path, data, said):
    with pytest.raises(DataError, match=said):
        PatchFile(store(tmp_path / "x.h5", data))


def read_in_child(files, queue):
    queue.put([file.read(ROWS).sum() for file in files])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_reads_the_same_under_fork_and_spawn(tmp_path, patches, method):
    flat = PatchFile(store(tmp_path / "flat.h5", patches))
    chunked = PatchFile(store(tmp_path / "chunked.h5", patches, chunks=(5, 96, 96, 3)))
    for file in (flat, chunked):
        file.read(ROWS)  # opened here first, so that there is something to inherit
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=([flat, chunked], queue))
    child.start()
    assert queue.get(timeout=60) == [patches[ROWS].sum()] * 2
    child.join()
    assert np.array_equal(chunked.read(ROWS), patches[ROWS])


def test_no_hdf5_handle_is_open_across_a_fork(tmp_path, patches):
    path = store(tmp_path / "x.h5", patches, chunks=(5, 96, 96, 3))
    file = PatchFile(path)
    assert not is_open(path)
    file.read(ROWS)
    assert is_open(path)
    child = os.fork()
    if child == 0:
        os._exit(1 if is_open(path) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not is_open(path)


def is_open(path):
    links = (link for link in Path("/proc/self/fd").iterdir() if link.exists())
    return any(link.resolve() == path.resolve() for link in links)


def test_a_pickle_carries_no_pixels(tmp_path, patches):
    for chunks in (None, (5, 96, 96, 3)):
        file = PatchFile(store(tmp_path / "x.h5", patches, chunks=chunks))
        file.read(ROWS)
        frozen = pickle.dumps(file)
        assert len(frozen) < 5000
        assert np.array_equal(pickle.loads(frozen).read(ROWS), patches[ROWS])


def test_threads_may_read_at_once(tmp_path, patches):
    file = PatchFile(store(tmp_path / "x.h5", patches, compression="gzip"))
    right = []

    def read_often():
        right.extend(np.array_equal(file.read(ROWS), patches[ROWS]) for _ in range(20))

    threads = [threading.Thread(target=read_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 80


def test_evenly_spaced_rows_are_one_of_each_stretch_and_in_step_with_nothing():
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]
    assert evenly_spaced(0, 10).tolist() == []
    rows = evenly_spaced(262_144, 1024)
    assert np.array_equal(rows // 256, np.arange(1024))
    for period in (2, 3, 4):
        for num in (50, 100, 400):
            shares = np.bincount(evenly_spaced(1200, num) % period, minlength=period) / num
            assert shares.min() > 0.6 / period and shares.max() < 1.6 / period


@pytest.mark.parametrize("rows", [[5, 4, 3, 9], [0, 0, 1, 1, 2], [23, 0, 1, 22, 23], [7], []])
@pytest.mark.parametrize("chunks", [None, (5, 96, 96, 3)])
def test_rows_in_any_order_and_repeated_are_read_as_asked_for(tmp_path, patches, rows, chunks):
    file = PatchFile(store(tmp_path / "x.h5", patches, chunks=chunks))
    wanted = np.array(rows, np.int64)
    assert np.array_equal(file.read_raw(wanted), patches[wanted])


def test_what_the_system_gives_in_pieces_is_read_to_the_end(tmp_path, patches, monkeypatch):
    file = PatchFile(store(tmp_path / "x.h5", patches))
    real_read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: real_read(fd, [into[0][:10_000]], at))
    assert np.array_equal(file.read_raw(ROWS), patches[ROWS])


def test_blocks_smaller_than_a_patch_hold_one(tmp_path, patches):
    file = PatchFile(store(tmp_path / "x.h5", patches))
    assert [len(rows) for rows, _ in file.blocks(np.arange(NUM), 100)] == [1] * NUM


def test_blocks_end_where_chunks_do_so_that_none_is_unpacked_twice(tmp_path, patches):
    file = PatchFile(store(tmp_path / "x.h5", patches, chunks=(3, 96, 96, 3)))
    blocks = [rows for rows, _ in file.blocks(np.arange(NUM), 8 * 96 * 96 * 3)]
    assert [len(rows) for rows in blocks] == [6, 6, 6, 6]
    few = [rows.tolist() for rows, _ in file.blocks(np.array([2, 5, 6, 23]), 8 * 96 * 96 * 3)]
    assert few == [[2, 5], [6], [23]]
