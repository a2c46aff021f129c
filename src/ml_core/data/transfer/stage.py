"""Copies of data sets on a disk of this machine: made once, checked, shared by all its jobs."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ml_core.data.file_errors import writable
from ml_core.data.read_through import FileStamp, hash_through, read_through
from ml_core.data.transfer.folder_lock import locked
from ml_core.data.transfer.stage_stamp import STAMP_NAME, StageStamp
from ml_core.data.versions.manifest import MANIFEST_NAME, Manifest, list_files
from ml_core.durable import sync, written_aside
from ml_core.errors import DataError


@dataclass(frozen=True)
class Staged:
    """A copy that can be used: where it is, which files were copied now and which were there."""

    path: Path
    copied: tuple[str, ...]
    reused: tuple[str, ...]


def stage(source: Path, dest: Path) -> Staged:
    """Make `dest` a checked copy of the data folder `source`, and return what was done.

    Copied are the files that dataset.json names, and itself; without one, all files but archives
    that lie there unpacked too. Each is hashed while it is read and compared with dataset.json,
    written aside, forced to the disk, read back and compared again, and renamed. What a stamp in
    `dest` says was copied, with neither side touched since, is not read again. Of several
    processes one copies and the others wait; when it is killed, the next goes on.

    `dest` must be on a disk of this machine: locks and renames over a network promise less. Raises
    DataError for a source that is incomplete, damaged, or changes meanwhile; for a `dest` that
    holds other data, also where the source changed since, since other jobs may be reading it; for
    too little space. No partial file stays then.
    """
    source, dest = source.resolve(), dest.resolve()
    if source.is_relative_to(dest) or dest.is_relative_to(source):
        raise DataError(f"{dest} and {source} lie within each other. Stage to another folder.")
    wanted = _files_to_copy(source)
    stamp = StageStamp.load(source, dest)
    if stamp.is_all_of(wanted):
        return Staged(dest, (), tuple(wanted))  # no lock, so another user's copy will do
    with locked(dest, wait=True):
        _remove_leftovers(dest, wanted)
        stamp = StageStamp.load(source, dest)  # as the process that was waited for left it
        stamp.reconcile(wanted)
        to_copy = [name for name in wanted if not stamp.is_current(name, wanted[name])]
        _check_space(source, dest, to_copy)
        for name in to_copy:
            stamp.add(name, *_copy(source / name, dest / name, wanted[name]))
    return Staged(dest, tuple(to_copy), tuple(name for name in wanted if name not in to_copy))


def _files_to_copy(source: Path) -> dict[str, str | None]:
    """Return the SHA-256 that dataset.json records by file, or None by file without one."""
    there = list_files(source)
    if not (source / MANIFEST_NAME).is_file():
        names = [name for name in there if name.removesuffix(".gz") not in {*there} - {name}]
        if not names:
            raise DataError(f"{source} holds no file to stage.")
        return dict.fromkeys(names)
    recorded = Manifest.load(source / MANIFEST_NAME).files
    missing = [name for name in recorded if name not in there]
    if missing:
        raise DataError(
            f"{source} misses files that its {MANIFEST_NAME} names: {', '.join(missing)}. "
            "See what is wrong: ml-core data verify DIR"
        )
    return {**{name: each.sha256 for name, each in recorded.items()}, MANIFEST_NAME: None}


def _remove_leftovers(dest: Path, names: Collection[str]) -> None:
    """Remove what killed processes wrote aside; whoever holds the lock is the only writer."""
    with writable(dest):
        for path in (dest / name for name in (*names, STAMP_NAME)):
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                leftover.unlink(missing_ok=True)


def _check_space(source: Path, dest: Path, names: Collection[str]) -> None:
    needed = sum(FileStamp.of(source / name).size for name in names)
    free = shutil.disk_usage(dest).free
    if needed > free:
        raise DataError(
            f"{dest} has {free:,} bytes free, but {needed:,} are to be copied there. Make room, or "
            "name a folder on a larger disk."
        )


def _copy(source: Path, dest: Path, sha256: str | None) -> tuple[FileStamp, str]:
    """Copy one file, checked on the way and on the disk; return the source's stamp and SHA-256."""
    with writable(dest), written_aside(dest) as aside:
        hasher = hashlib.sha256()
        with open(aside, "wb", buffering=0) as file:
            seen = read_through(source, [hasher, _Writer(file)])
        digest = hasher.hexdigest()
        if digest != (sha256 or digest):
            raise DataError(
                f"{source} is not what {MANIFEST_NAME} says (SHA-256 {digest}, recorded {sha256}). "
                "See what is wrong: ml-core data verify DIR"
            )
        if _hash_on_disk(aside) != digest:
            raise DataError(
                f"{dest} was written and reads back otherwise: the disk, or the memory, of this "
                "machine is failing. Use another machine."
            )
    return seen, digest


class _Writer:
    """A sink that writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def update(self, block: bytes, /) -> None:
        view = memoryview(block)
        while len(view):  # an unbuffered write may take a part only
            view = view[self._file.write(view) :]


def _hash_on_disk(path: Path) -> str:
    """Return the SHA-256 of what is on the disk, not of what the system remembers writing."""
    sync(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return hash_through(path)[0]
