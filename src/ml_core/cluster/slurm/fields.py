"""How Slurm writes records, durations, sizes and GPUs.

Fields end in a control character that no name holds, since a job's name may hold everything else:
blanks, ``|``, ``Key=value``, even newlines. squeue and sinfo take any text as a field's end in
``--Format=type:END``, and without a size they cut nothing off (their manuals, 22.05 to 24.11).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

FIELD_END, RECORD_END = "\x1f", "\x1e"  # ASCII's unit and record separators
_NOTHING = {"", "(null)", "N/A", "n/a", "NONE", "None", "Unknown", "NULL", "INVALID", "NOT_SET"}
_DURATION = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)")
_IN_MB = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}
# "gpu:a100:2(S:0-1),gpu:4,tmpfs:5T": a name, perhaps a type, a count, perhaps its sockets
_GRES_GPU = re.compile(r"(?:^|,)gpu(?::([A-Za-z][^:,()]*|[^:,()]*\D[^:,()]*))?:(\d+)(?=[(,]|$)")


def format_of(names: Sequence[str]) -> str:
    """Return the value of ``--Format`` that gives these fields, each ended, and each record too."""
    *first, last = names
    return ",".join([f"{name}:{FIELD_END}" for name in first] + [f"{last}:{RECORD_END}"])


def records(text: str, names: Sequence[str]) -> list[dict[str, str]]:
    """Return the records that `format_of` asked for, as {name: text}; others are left out."""
    rows = (row.lstrip("\n").split(FIELD_END) for row in text.split(RECORD_END))
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def pairs(line: str) -> dict[str, str]:
    """Return the ``Key=value`` of a line of ``scontrol show -o`` whose values hold no blanks."""
    tokens = (token.partition("=") for token in line.split())
    return {key: value for key, equals, value in tokens if equals}


def text_or_none(text: str) -> str | None:
    """Return `text`, or None for the words by which Slurm says that there is nothing."""
    return None if text.strip() in _NOTHING else text.strip()


def seconds(text: str) -> int | None:
    """Return a duration as Slurm prints it, ``1-12:00:00`` or ``02:30``; None for no limit.

    None too for what is not a duration, as ``NOT_SET``.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, secs = (int(number or 0) for number in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + secs


def duration(secs: int) -> str:
    """Return seconds as Slurm writes and takes them: ``2:00``, ``1:30:00``, ``1-12:00:00``."""
    days, rest = divmod(secs, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def megabytes(text: str) -> float | None:
    """Return a size, ``1234K`` or ``400M``, in MiB; None if it is none.

    Without a letter it is in MiB already, as sinfo prints memory.
    """
    match = _SIZE.fullmatch(text.strip())
    return None if match is None else float(match[1]) * _IN_MB[match[2]]


def size(megabytes: float) -> str:
    """Return ``60 MB`` or ``1.5 GB``, of 1024 each, as Slurm counts."""
    gb = megabytes / _IN_MB["G"]
    return f"{megabytes:.0f} MB" if gb < 1 else f"{gb:.1f}".removesuffix(".0") + " GB"


def resident_megabytes(text: str) -> float | None:
    """Return a size as ``sacct --noconvert`` prints what was used, in MiB: bytes, or a letter."""
    return int(text) / 2**20 if text.isdecimal() else megabytes(text)


def tres(text: str) -> dict[str, str]:
    """Return ``cpu=4,gres/gpu:a100=1,mem=400M`` as {name: value}."""
    parts = (part.rpartition("=") for part in text.split(","))
    return {name: value for name, equals, value in parts if equals}


def when(text: str) -> datetime | None:
    """Return a time of ``2026-11-22T21:49:59``, of the cluster's own time zone, or None."""
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None


def gpus_of_gres(text: str) -> dict[str, int]:
    """Return the GPUs in a node's ``gpu:a100:2(S:0-1),gpu:h100:1`` as {type: n}, "" for no type."""
    gpus: dict[str, int] = {}
    for kind, num in _GRES_GPU.findall(text):
        gpus[kind] = gpus.get(kind, 0) + int(num)
    return gpus


def gpus_of_tres(text: str) -> dict[str, int]:
    """Return the GPUs in a job's ``cpu=4,gres/gpu:a100=2,gres/gpu=2`` as {type: n}."""
    numbers = {
        name.removeprefix("gres/gpu").removeprefix(":"): int(value)
        for name, value in tres(text).items()
        if name == "gres/gpu" or name.startswith("gres/gpu:")
    }
    # the untyped number counts the typed ones once more
    return numbers if len(numbers) < 2 else {kind: n for kind, n in numbers.items() if kind}
