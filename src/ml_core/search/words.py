"""Values and counts as a person would write them."""

from __future__ import annotations

from typing import Any


def said(value: Any, digits: int = 6) -> str:
    """Return a value as a person would write it: 0.001, [64, 32], relu."""
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(said(each, digits) for each in value)}]"
    return str(value)


def number_of(count: int, noun: str) -> str:
    """Return "1 trial", "5 trials"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
