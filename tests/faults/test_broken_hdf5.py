"""HDF5 files that are cut short, have holes, are locked, or were made to harm."""

import fcntl
import math
import os
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest
from hdf5_mutations import FORMATS, STORAGES, Reader, originals, patches_to_break

from ml_core.data.checks import check_splits
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.errors import DataError

pytestmark = pytest.mark.faults


@pytest.fixture
def reader():
    found = Reader()
    yield found
    found.close()


def test_a_file_cut_at_any_point_is_refused(tmp_path, reader, draws, fault):
    """At evenly spaced points of each storage and format, the last byte among them."""
    cuts = fault(7, "HDF5 cut short at 100 points, in each storage")
    for kind, content in originals(tmp_path).items():
        for point in np.linspace(0, len(content) - 1, draws(100, 10)).astype(int):
            path = tmp_path / f"{point}.h5"
            path.write_bytes(content[:point])
            outcome, details = reader.read(path)
            with cuts.case(f"{kind} at byte {point}"):
                assert outcome == "refused", f"{outcome} {details}"
                assert str(path) in details
                assert says_what_to_do(details), details
            path.unlink()


def says_what_to_do(text):
    return any(word in text for word in ("Copy or unpack it again", "Unpack it first"))


@pytest.mark.parametrize("storage", [name for name in STORAGES if name != "flat"])
@pytest.mark.parametrize("version", FORMATS)
def test_chunks_that_were_never_written_are_refused(tmp_path, storage, version, fault):
    holes = fault(7, "HDF5 chunks never written")
    patches = patches_to_break()
    rows_per_chunk = STORAGES[storage]["chunks"][0]
    for first in range(0, len(patches), rows_per_chunk):
        path = tmp_path / f"{first}.h5"
        with h5py.File(path, "w", libver=version) as file:
            x = file.create_dataset("x", patches.shape, "u1", **STORAGES[storage])
            for start in range(0, len(patches), rows_per_chunk):
                if start != first:
                    x[start : start + rows_per_chunk] = patches[start : start + rows_per_chunk]
        with (
            holes.case(f"{storage}, {version}, from row {first}"),
            pytest.raises(DataError, match="chunks were never written"),
        ):
            PatchFile(path)


def test_a_file_of_a_training_with_a_hole_is_refused_before_it_trains(tmp_path, fault):
    hole = fault(7, "HDF5 labels never written")
    labels = np.arange(64) % 2
    paths = split_paths(tmp_path, "train")
    with h5py.File(paths.x, "w") as file:
        file["x"] = patches_to_break()
    with h5py.File(paths.y, "w") as file:
        y = file.create_dataset("y", (64,), "u1", chunks=(16,))
        y[:48] = labels[:48]
    with hole.case("the last 16 labels"), pytest.raises(DataError, match="never written"):
        check_splits(tmp_path, ["train"], patch_size=None)


def test_without_the_check_a_hole_is_read_as_black_patches(tmp_path, monkeypatch, fault):
    control = fault(24, "holes of HDF5 not looked for: zeros without a word")
    monkeypatch.setattr("ml_core.data.hdf5.check_no_holes", lambda dataset, path: None)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        x = file.create_dataset("x", (64, 8, 8, 3), "u1", chunks=(16, 8, 8, 3))
        x[:48] = 200
    with control.case("the last of four chunks"):
        levels = PatchFile(tmp_path / "x.h5").read(np.arange(64))
        assert levels[:48].all() and not levels[48:].any()


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_a_lock_is_no_obstacle_or_is_named(tmp_path, is_asked_for, fault):
    locks = fault(7, "the HDF5 file is locked by another process")
    path = tmp_path / "x.h5"
    path.write_bytes(originals(tmp_path)["flat", "earliest"])
    code = (
        "import sys; from ml_core.data.patch_file import PatchFile\n"
        "from ml_core.errors import DataError\n"
        "try: print(len(PatchFile(sys.argv[1])))\n"
        "except DataError as error: print(error)"
    )
    asked = {"HDF5_USE_FILE_LOCKING": "TRUE"} if is_asked_for else {}
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = subprocess.run(
            [sys.executable, "-c", code, path],
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    with locks.case(f"locks asked for: {is_asked_for}"):
        if is_asked_for:
            assert "is locked by a process that writes it" in said
            assert "unset that variable" in said
        else:
            assert said == "64\n"


def test_files_made_to_harm_are_refused_by_a_reader_that_survives(tmp_path, reader, fault):
    """Sizes beyond memory, cycles of links, types of no pixels: what a hostile writer would try."""
    crafted = fault(7, "crafted HDF5: sizes, links, types")
    for name, write in CRAFTED.items():
        path = tmp_path / f"{name.replace(' ', '_')}.h5"
        with h5py.File(path, "w") as file:
            write(file)
        outcome, details = reader.read(path)
        with crafted.case(name):
            assert outcome == "refused", f"{outcome} {details}"
            assert str(path) in details
    whole = tmp_path / "whole.h5"
    whole.write_bytes(originals(tmp_path)["flat", "earliest"])
    assert reader.read(whole)[0] == "same"


def huge(file):
    file.create_dataset("x", (2**40, 96, 96, 3), "u1", chunks=(1, 96, 96, 3))


def bomb(file):
    """Write 3 GB of zeros in 3 MB, of one patch: more than the reader may have."""
    shape, chunks = (1, 2**15, 2**15, 3), (1, 2**8, 2**15, 3)
    x = file.create_dataset("x", shape, "u1", chunks=chunks, compression="gzip")
    squeezed = zlib.compress(bytes(math.prod(chunks)), 1)
    for start in range(0, shape[1], chunks[1]):
        x.id.write_direct_chunk((0, start, 0, 0), squeezed)


def checksum_left_out(file):
    """Write chunks whose index says of the last filter, the checksum, that it was not used."""
    options = {"compression": "gzip", "fletcher32": True}
    x = file.create_dataset("x", (4, 8, 8, 3), "u1", chunks=(2, 8, 8, 3), **options)
    for row in (0, 2):
        x.id.write_direct_chunk((row, 0, 0, 0), zlib.compress(bytes(2 * 8 * 8 * 3)), 0b10)


def soft_cycle(file):
    file["a"], file["x"] = h5py.SoftLink("/x"), h5py.SoftLink("/a")


def external_nowhere(file):
    file["x"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_values(file):
    file.create_dataset("x", (9, 2, 2, 3), "u1", external=[("/etc/hostname", 0, 108)])


def itself(file):
    layout = h5py.VirtualLayout((4, 8, 8, 3), "u1")
    layout[:] = h5py.VirtualSource(file.filename, "x", (4, 8, 8, 3))
    file.create_virtual_dataset("x", layout)


def records(file):
    file["x"] = np.zeros((4, 8, 8, 3), [("a", "u1"), ("b", "f4")])


def texts(file):
    file["x"] = np.full((4, 8, 8, 3), "a", dtype=h5py.string_dtype())


CRAFTED = {
    "2**40 patches": huge,
    "3 GB of zeros in 3 MB": bomb,
    "checksums left out": checksum_left_out,
    "links in a circle": soft_cycle,
    "a link elsewhere": external_nowhere,
    "values elsewhere": external_values,
    "a view of itself": itself,
    "records": records,
    "texts": texts,
    "no data set": lambda file: file.create_group("x"),
    "no dimension": lambda file: file.create_dataset("x", data=1),
    "nothing": lambda file: None,
}
