"""A difference between two runs, or a run and the present: what it is, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["code", "config", "data", "packages", "hardware", "numerics"]

# From cause to effect: the first difference in this order is the one that may explain the others.
# `hardware` is also the libraries, threads and variables; `numerics` is the bits that came out.
KINDS: tuple[Kind, ...] = get_args(Kind)

NOT_RECORDED = "not recorded"  # by a version of ml_core that did not look
MISSING = "missing"  # a file that was there once, and contradicts nothing any more


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same `here` (the run asked about) and `there` (the other).

    `what` names it: a config key, a file and its rows, a package, a step. `advice` is one sentence.
    `is_edit`: it is of one run alone, as recorded `here` and as its files say by now `there`.
    `is_harmless`: whatever else differs, it is not the cause.
    """

    kind: Kind
    what: str
    here: str
    there: str
    advice: str
    is_edit: bool = False
    is_harmless: bool = False

    @property
    def is_unknown(self) -> bool:
        """Whether nothing differs for all that is known: one side says nothing of it."""
        return bool({NOT_RECORDED, MISSING} & {self.here, self.there})

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}: {self.here} here, {self.there} there. {self.advice}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)
