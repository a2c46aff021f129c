"""An append-only log of checked lines that a kill, a full disk or a resume leaves whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_core.durable import sync
from ml_core.errors import RunError
from ml_core.log_line import LineReader, check_tail, to_line

LONGEST_LINE = 1 << 20  # bytes looked through for the end of the last whole line


class LogFile:
    """The log at `path`, opened for appending; a last line cut short by a crash is removed.

    Writing is not buffered here: when `append` returns, the operating system has the whole line, so
    that killing this process loses none, and a forked worker has nothing of ours to write twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = _cut_torn_line(path)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write one line and return what it says: NaN and infinities, unknown to JSON, become None.

        Raises OSError, leaving the lines before it whole, when the line does not fit; ValueError
        for a key `crc`, which is the line's checksum.
        """
        clean = {key: _json_value(value) for key, value in record.items()}
        line = to_line(clean)
        try:
            written = self._file.write(line)
            while written < len(line):  # a disk that fills up takes a part first and then refuses
                written += self._file.write(line[written:])
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._end)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._end += len(line)
        return clean

    def sync(self) -> None:
        """Return when the lines would survive a power cut.

        Raises RunError where another file, or none, has the log's name by then: what was appended
        since that happened is in no file that anyone will read.
        """
        os.fsync(self._file.fileno())
        try:
            is_there = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise RunError(
                f"{self.path} was replaced or removed while it was written: by a process that took "
                "the run over, or by hand. This process stops; if no other trains there, go on "
                f"with: ml-core train --resume {self.path.parent}"
            )

    def keep(
        self,
        wanted: Callable[[dict[str, Any]], bool],
        *,
        is_enough: Callable[[dict[str, Any]], bool] = lambda _: False,
        needs_none: bool = False,
    ) -> None:
        """Replace the log, atomically, by those of its lines that are `wanted`.

        A process that still has the old file open then writes to nobody. Raises RunError at a
        damaged line, unless a line before it `is_enough`, or the caller `needs_none`: what was not
        yet synced may be rubbish after a power cut, and is dropped from there on.
        """
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        lines, has_enough = LineReader(self.path), needs_none
        try:
            with open(self.path, "rb") as old, open(aside, "wb") as new:
                for line in old:
                    try:
                        record = lines.read(line)
                    except RunError:
                        if has_enough:
                            break
                        raise
                    has_enough = has_enough or is_enough(record)
                    if wanted(record):
                        new.write(line)
                new.flush()
                os.fsync(new.fileno())
            os.replace(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)
        sync(self.path.parent)
        self._file.close()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._end = self.path.stat().st_size

    def close(self) -> None:
        if not self._file.closed:
            os.fsync(self._file.fileno())  # whose file that is by now, no longer matters
            self._file.close()


class LogReplacedError(Exception):
    """The log was rewritten by a resume: what was read of it is no longer true, read it anew."""


class LogReader:
    """Reads a log while it grows: each iteration yields the whole lines added since the last one.

    Iterating raises RunError at a damaged line, and LogReplacedError when `LogFile.keep` has put
    another file in the place of the one that was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = LineReader(path)
        self._offset = 0
        self._inode: int | None = None

    @property
    def num_lines(self) -> int:
        return self._lines.num_lines

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with open(self.path, "rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if self._inode not in (None, inode):
                raise LogReplacedError(self.path)
            self._inode = inode
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    check_tail(line, self.path)
                    return
                record = self._lines.read(line)
                self._offset += len(line)
                yield record


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, Mapping):  # the tensors of a link of chain.jsonl
        return {key: _json_value(each) for key, each in value.items()}
    number = float(value)  # numpy and torch scalars too
    return number if math.isfinite(number) else None


def _cut_torn_line(path: Path) -> int:
    """Make the file at `path` if need be, cut it back to its last newline, and return its size.

    Raises RunError where what would be cut is a whole line.
    """
    with open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            sync(path.parent)  # a log that is new must not vanish with its name
        start = max(0, end - LONGEST_LINE)
        file.seek(start)
        tail = file.read()
        size = start + tail.rfind(b"\n") + 1
        if size < end:
            check_tail(tail[size - start :], path)
            file.truncate(size)
    return size
