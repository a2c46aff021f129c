"""How text, numbers and links are written in Markdown, so that no content can become markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from ml_core.page.text import UNDEFINED, decimal, plain, signed

# A backslash makes plain text of these wherever they stand; an underscore only at a word's edge,
# since within pcam_cnn it is none.
_SPECIAL = re.compile(r"([\\`*\[\]<>|&~#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def markdown(value: Any) -> Markup:
    """Return any value as text of one line that Markdown shows as it is; Markup is left alone."""
    if isinstance(value, Markup):
        return value
    line = re.sub(r"\s+", " ", plain(value))
    return Markup(_SPECIAL.sub(r"\\\1", line))


def code(value: Any) -> Markup:
    """Return text in backticks, more of them than it holds in a row; a dash for no text."""
    line = re.sub(r"\s+", " ", str(value)).strip()
    if not line:
        return Markup(UNDEFINED)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return Markup(f"{fence}{pad}{line}{pad}{fence}")


def cell_code(value: Any) -> Markup:
    """Return `code` for a cell of a table, which a bar would end even in backticks."""
    return Markup(code(value).replace("|", r"\|"))


def link(name: str, folder: str | None = "") -> Markup:
    """Return a link to the file `name` of the run to which `folder` leads; None: the name alone."""
    if folder is None:
        return code(name)
    return Markup(f"[{markdown(name)}]({folder}{quote(name)})")


def interval(score: Any, digits: int = 3) -> Markup:
    """Return {"value", "low", "high"} as "0.945 (0.933 to 0.955)", the value alone without ends."""
    return _between(score, lambda value: decimal(value, digits).replace("-", "−"))


def _between(score: Any, write: Callable[[float], str]) -> Markup:
    if score is None or score["value"] is None:
        return Markup(UNDEFINED)
    value = write(score["value"])
    if score["low"] is None or score["high"] is None:
        return Markup(value)
    return Markup(f"{value} ({write(score['low'])} to {write(score['high'])})")


def difference(score: Any, digits: int = 3) -> Markup:
    """Return a score that is a difference, with signs: "−0.110 (−0.140 to −0.080)"."""
    return _between(score, lambda value: signed(value, digits))


def points(score: Any, digits: int = 1) -> Markup:
    """Return a difference of two shares in points of a hundred: "+18.2 (+9.1 to +27.0)"."""
    return _between(score, lambda value: signed(100 * value, digits))


def p_value(value: float | None) -> Markup:
    """Return 0.0123 as "0.0123", and what is too small for four digits as "< 0.0001"."""
    if value is not None and value < 0.00005:
        return Markup(r"\< 0.0001")
    return Markup(decimal(value, 4))
