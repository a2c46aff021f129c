"""Versions of packages, as far as this project's own requirements go: ``pandas>=2.2,<4``.

Names and operators are those of PEP 508 and PEP 440. Of a version its release counts, ``2.13.0`` of
``2.13.0+cpu`` and of ``2.13.0rc1``: which build of torch is installed is no other version.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?")
_BOUND = re.compile(r"\s*(~=|==|!=|<=|>=|<|>)\s*([\w.+!*-]+)\s*")

Release = tuple[int, ...]
_OPERATORS: dict[str, Callable[[Release, Release], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<=": operator.le, ">=": operator.ge,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True)
class Requirement:
    """A package by its normalised name (PEP 503), and the bounds of its version, perhaps ""."""

    name: str
    bounds: str


def parse_requirement(text: str) -> Requirement | None:
    """Return a line of requirements without its extras and marker; None where it is none."""
    match = _NAME.match(text)
    return None if match is None else Requirement(normalised(match[1]), match[2].strip())


def normalised(name: str) -> str:
    """Return the name of a package as PEP 503 compares it: ``Ruamel.yaml`` is ``ruamel-yaml``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_within(version: str, bounds: str) -> bool:
    """Return whether `version` keeps each bound of ``>=2.2,<4``; all versions keep no bound."""
    found = [_BOUND.fullmatch(bound) for bound in bounds.split(",") if bound.strip()]
    return all(match is not None and _keeps(version, match[1], match[2]) for match in found)


def is_same(version: str, other: str) -> bool:
    """Return whether two versions are the same release."""
    return is_within(version, f"=={other}")


def _keeps(version: str, sign: str, bound: str) -> bool:
    if sign == "~=":  # PEP 440: >= all of it, and == all but its last number
        upper = f"{bound.rpartition('.')[0]}.*"
        return _keeps(version, ">=", bound) and _keeps(version, "==", upper)
    if bound.endswith(".*"):
        prefix = _release(bound[:-2])
        is_of = _release(version)[: len(prefix)] == prefix
        return is_of if sign == "==" else not is_of
    ours, theirs = _release(version), _release(bound)
    length = max(len(ours), len(theirs))
    return _OPERATORS[sign](_padded(ours, length), _padded(theirs, length))


def _release(version: str) -> Release:
    match = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _padded(release: Release, length: int) -> Release:
    return release + (0,) * (length - len(release))
