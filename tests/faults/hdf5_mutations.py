"""HDF5 files with a few bytes changed, read one after the other by a child that may die of them.

The child prints a line of JSON per file: [path, what came of it, details]. `same` and `other`:
values were read, those that were written or not; `refused`: a DataError, with its text; `escaped`:
anything else, with its repr. It has 2 GiB of address space and, per file, the parent's patience.
"""

import json
import os
import resource
import select
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

MEMORY_BYTES = 2 << 30
PATIENCE_S = 30.0
HEADER_BYTES = 2500  # where nearly all of HDF5's own structures are in files of this size
STORAGES = {
    "flat": {},
    "chunked": {"chunks": (5, 8, 8, 3)},
    "gzip": {"chunks": (5, 8, 8, 3), "compression": "gzip"},
    "checksums": {"chunks": (5, 8, 8, 3), "fletcher32": True},
    "gzip, shuffled, checksums": {
        "chunks": (3, 4, 8, 3), "compression": "gzip", "shuffle": True, "fletcher32": True,
    },
}  # fmt: skip
FORMATS = ("earliest", "latest")  # only the latest has checksums of HDF5's own structures
NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def patches_to_break():
    return np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)


def originals(folder):
    """Return the bytes of a file per storage and format, {(storage, format): bytes}."""
    found = {}
    for storage, options in STORAGES.items():
        for version in FORMATS:
            path = folder / "original.h5"
            with h5py.File(path, "w", libver=version) as file:
                file.create_dataset("x", data=patches_to_break(), **options)
            found[storage, version] = path.read_bytes()
    return found


def mutate(content, rng):
    """Return `content` with one to three changes: bits, bytes, numbers, stretches, its end."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        end = min(len(changed), HEADER_BYTES) if rng.random() < 0.7 else len(changed)
        at = int(rng.integers(0, end))
        kind = rng.integers(0, 6)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == 2:
            width = int(rng.choice([2, 4, 8]))
            number = NUMBERS[rng.integers(len(NUMBERS))].to_bytes(8, "little")[:width]
            changed[at : at + width] = number[: len(changed) - at]
        elif kind == 3:
            start, width = int(rng.integers(0, len(changed))), int(rng.integers(1, 64))
            changed[at : at + width] = changed[start : start + width]
        elif kind == 4:
            width = min(int(rng.integers(1, 512)), len(changed) - at)
            changed[at : at + width] = bytes(width)
        elif rng.random() < 0.3:
            del changed[max(1, at) :]
    return bytes(changed)


class Reader:
    """A child that reads files by name; one that dies or hangs is replaced by the next."""

    def __init__(self):
        self.child = None

    def read(self, path, *, as_recorded=False):
        """Return (what came of it, details); `died` and `hung` besides what the child says.

        `as_recorded`: compared with the manifest beside it first.
        """
        if self.child is None:
            self.child = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            assert self.child.stdout.readline() == "ready\n"
        self.child.stdin.write(json.dumps([str(path), as_recorded]) + "\n")
        self.child.stdin.flush()
        if not select.select([self.child.stdout], [], [], PATIENCE_S)[0]:
            self.close()
            return "hung", f"for {PATIENCE_S} s"
        line = self.child.stdout.readline()
        if not line:
            status = self.child.wait()
            self.close()
            return "died", f"with status {status}"
        return tuple(json.loads(line))

    def close(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None


def read_files():
    from ml_core.data import hdf5
    from ml_core.data.patch_file import PatchFile
    from ml_core.data.versions.digests import digest_as_read
    from ml_core.data.versions.recorded import check_recorded
    from ml_core.errors import DataError

    if os.environ.get("ML_CORE_TEST_UNCHECKED_INDEX"):  # a negative control
        hdf5.check_no_holes = lambda dataset, path: None
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    written = patches_to_break()
    print("ready", flush=True)
    for line in sys.stdin:
        path, as_recorded = json.loads(line)
        try:
            if as_recorded:
                check_recorded([(Path(path), digest_as_read(Path(path)))])
            file = PatchFile(path)
            values = file.read(np.arange(min(len(file), len(written))))
            is_same = len(file) == len(written) and np.array_equal(values, written)
            told = ("same" if is_same else "other", f"{file.shape}")
        except DataError as error:
            told = ("refused", str(error))
        except BaseException as error:
            told = ("escaped", repr(error))
        file = None  # HDF5 would give an open handle to the next file of the same inode
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    read_files()
