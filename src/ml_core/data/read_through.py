"""Reading a file once from end to end, into everything that wants its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from ml_core.data.file_errors import readable
from ml_core.errors import DataError
from ml_core.log import progress

BLOCK_BYTES = 8 * 2**20  # read at once; two blocks are held


class Sink(Protocol):
    """What takes a stream piece by piece: one of hashlib's hashes, for example."""

    def update(self, block: bytes, /) -> object:
        """Take the next piece."""


class FileStamp(NamedTuple):
    """What changes when a file is written or replaced: cheap to ask, no proof of its content."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Return the stamp of `path` as it is now; raises DataError."""
        with readable(path):
            found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)

    @classmethod
    def of_open(cls, descriptor: int) -> FileStamp:
        """Return the stamp of an open file."""
        found = os.fstat(descriptor)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


def check_unchanged(path: Path, descriptor: int, stamp: FileStamp) -> None:
    """Raise DataError unless the open file `descriptor` is `path` as it was at `stamp`.

    A touch is refused like a write, which cannot be told from it without reading all of the file.
    """
    found = os.fstat(descriptor)
    now = FileStamp(found.st_size, found.st_mtime_ns, found.st_ino)
    is_gone = found.st_nlink == 0 and not _is_at(path, found)
    if now == stamp and not is_gone:
        return
    if is_gone or now.inode != stamp.inode:
        what = "was deleted or replaced"
    elif now.size < stamp.size:
        what = f"is truncated, {now.size:,} bytes of {stamp.size:,} are left: it was cut short"
    else:
        what = "was written to, or touched,"
    raise DataError(
        f"{path} {what} after its reading had begun, so the rest may be other data. Put it back "
        "as it was and start again, or resume: what is in it is compared then."
    )


def _is_at(path: Path, found: os.stat_result) -> bool:
    # some file systems in user space count no links at all
    try:
        return os.path.samestat(path.stat(), found)
    except OSError:
        return False


def read_through(path: Path, sinks: Sequence[Sink]) -> FileStamp:
    """Feed every byte of `path` to each of `sinks`, in order; return the file's stamp.

    The sinks work at the same time, each in a thread, while the next block is read: hashes let go
    of the interpreter's lock, so that several digests cost little more than the slowest of them.
    Raises DataError for a file that cannot be read or that changes meanwhile; what a sink raises
    passes as it is.
    """
    before = FileStamp.of(path)
    blocks = progress(
        _blocks(path), total=-(-before.size // BLOCK_BYTES), description=path.name, unit="blocks"
    )
    with ThreadPoolExecutor(max_workers=max(1, len(sinks))) as pool:
        pending: list[Future[object]] = []
        for block in blocks:
            _finish(pending)
            pending = [pool.submit(sink.update, block) for sink in sinks]
        _finish(pending)
    if FileStamp.of(path) != before:
        raise DataError(
            f"{path} was changed while it was read. Wait until whoever writes it is done, then "
            "do this again."
        )
    return before


def hash_through(path: Path, algorithm: str = "sha256") -> tuple[str, FileStamp]:
    """Return the digest of `path` in hexadecimal and its stamp; raises DataError."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    stamp = read_through(path, [hasher])
    return hasher.hexdigest(), stamp


def _blocks(path: Path) -> Iterator[bytes]:
    with readable(path):
        file = path.open("rb", buffering=0)
    with file:
        while True:
            with readable(path):
                block = file.read(BLOCK_BYTES)
            if not block:
                return
            yield block


def _finish(pending: Sequence[Future[object]]) -> None:
    for task in pending:
        task.result()
