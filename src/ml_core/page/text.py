"""How numbers, times and hashes are written in the report."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

UNDEFINED = "–"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return 0.94416 as "0.944"; an undefined value is a dash, never a number."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign, a true minus."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return f"{value:+.{digits}f}".replace("-", "−")


def count(value: float | None) -> str:
    """Return 327680 as "327,680"."""
    return UNDEFINED if value is None else f"{int(value):,}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return 0.8714 as "87.1 %", and what is too small for the digits as "< 0.1 %"."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    smallest = 10.0**-digits
    if 0 < 100 * value < smallest / 2:
        return f"< {smallest:g} %"
    return f"{100 * value:.{digits}f} %"


def enumerated(names: Sequence[str]) -> str:
    """Return names as "train", "train and valid", "train, valid and test"."""
    *most, last = names or ("",)
    return f"{', '.join(most)} and {last}" if most else last


def duration(seconds: float | None) -> str:
    """Return 4230 as "1 h 10 min", 75 as "1 min 15 s", 9.4 as "9.4 s"."""
    if seconds is None:
        return UNDEFINED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(iso: str | None) -> str:
    """Return "2026-01-02T03:04:05+00:00" as "2026-01-02 03:04:05 UTC"."""
    if iso is None:
        return UNDEFINED
    try:
        time = dt.datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = time.tzname() or "no time zone"
    return f"{time:%Y-%m-%d %H:%M:%S} {zone}"


def short_hash(value: str | None, length: int = 12) -> str:
    """Return the first characters of a hash, which is enough to tell two apart by eye."""
    return UNDEFINED if not value else value[:length]


def plain(value: Any) -> str:
    """Return a value of run.json as a reader would write it."""
    if value is None:
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)
