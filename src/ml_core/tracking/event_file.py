"""TensorBoard events, written in the calling thread.

tensorboard's own EventFileWriter writes from a thread: on a full disk that thread dies, and the
error surfaces in whatever call comes next. The format is small enough to write here: a protocol
buffer per event, framed as a TFRecord with its length and two checksums.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FLUSH_EVERY_S = 1.0


def _crc32c_of_byte(byte: int) -> int:
    """Return an entry of the table of CRC-32C (RFC 3720: the reflected polynomial 0x82F63B78)."""
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC32C = tuple(_crc32c_of_byte(byte) for byte in range(256))


class EventFile:
    """Scalars for TensorBoard, in a new file of `directory`.

    A view of the run, not its record: when it cannot be written (disk full, package broken), one
    warning is logged, nothing more is written, and no method raises.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file: io.FileIO | None = None
        self._pending: list[bytes] = []
        self._last_flush = time.monotonic()
        self._broken = False
        self._open()

    def add_scalars(self, step: int, wall_time: float, values: Mapping[str, Any]) -> None:
        """Add one point to each tag of `values`; those that are not finite numbers are left out."""
        if self._broken:
            return
        try:
            self._add(step, wall_time, values)
            if time.monotonic() - self._last_flush >= FLUSH_EVERY_S:
                self.flush()
        except Exception as error:
            self._give_up(error)

    def flush(self) -> None:
        if self._broken or self._file is None:
            return
        try:
            data = b"".join(self._pending)
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
            self._pending = []
            self._last_flush = time.monotonic()
        except OSError as error:
            self._give_up(error)

    def start_over(self) -> None:
        """Delete every event file of the directory and begin a new one."""
        self.close()
        try:
            for path in self.directory.glob("events.out.tfevents.*"):
                path.unlink()
        except OSError as error:
            self._give_up(error)
            return
        self._open()

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        try:
            # Imported where a broken tensorboard can still be survived.
            # generated from a protocol file, so without types
            from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

            self._event = Event
            self._pending = []
            self.directory.mkdir(parents=True, exist_ok=True)
            # Nanoseconds where TensorBoard has seconds: it only sorts by them.
            name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
            self._file = open(self.directory / name, "xb", buffering=0)  # noqa: SIM115 - closed by close()
            head = Event(wall_time=time.time(), file_version="brain.Event:2")
            self._pending.append(_frame(head.SerializeToString()))
            self._broken = False
        except Exception as error:
            self._give_up(error)
        self.flush()

    def _add(self, step: int, wall_time: float, values: Mapping[str, Any]) -> None:
        event = self._event(wall_time=wall_time, step=step)
        for tag, value in values.items():
            if value is not None and math.isfinite(value):
                event.summary.value.add(tag=tag, simple_value=value)
        self._pending.append(_frame(event.SerializeToString()))

    def _give_up(self, error: Exception) -> None:
        if not self._broken:
            logger.warning(
                "TensorBoard events are no longer written to %s: %s. "
                "The run goes on; metrics.jsonl and steps.jsonl hold everything.",
                self.directory,
                error,
            )
        self._broken = True


def _frame(data: bytes) -> bytes:
    """Return `data` as one TFRecord (tensorflow/core/lib/io/record_writer.h)."""
    return b"".join((_length_header(len(data)), data, _masked_crc(data)))


@functools.lru_cache
def _length_header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + _masked_crc(packed)


def _masked_crc(data: bytes) -> bytes:
    # tensorboard's own crc32c takes four times as long, which was half the cost of a step's line.
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
