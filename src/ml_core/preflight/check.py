"""One line of `ml-core doctor`: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "error")  # the worst last


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `told` is one line, `remedy` one or, of a list, several."""

    about: str
    level: Level
    told: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return the line that is printed: ``warning  clock      this machine's clock ...``."""
        head = f"{self.level:<7}  {self.about:<9}  "
        words = f"{self.told} {self.remedy}".strip()
        return head + words.replace("\n", "\n" + " " * len(head))


def ok(about: str, told: str) -> Check:
    """Return that all is well, and what was seen."""
    return Check(about, "ok", _line(told))


def warning(about: str, told: str, remedy: str = "") -> Check:
    """Return that `told` is to be known, and does not end the job."""
    return Check(about, "warning", _line(told), remedy)


def error(about: str, told: object, remedy: str = "") -> Check:
    """Return that `told`, words or an exception that says what to do itself, ends the job."""
    return Check(about, "error", _line(str(told)), remedy)


def worst(checks: list[Check]) -> Level:
    """Return the worst level among `checks`; ok where there are none."""
    return max((check.level for check in checks), key=LEVELS.index, default="ok")


def listed(names: list[str], most: int = 12) -> str:
    """Return names with commas between, of very many the first and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _line(text: str) -> str:
    """Return `text` as one line; what was a list, a line each, gets semicolons."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return re.sub(r"([:;.,]);", r"\1", "; ".join(line for line in lines if line))
