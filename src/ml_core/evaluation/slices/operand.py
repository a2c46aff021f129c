"""One side of a comparison in a query: the numbers or texts that it stands for."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.slices.facts import Kind

Array = npt.NDArray[Any]
Combine = Callable[[Array, Array], Array]

SUMS: dict[type[ast.operator], Combine] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_OF_KIND = {"number": "a number", "category": "text", "text": "text", "none": "None"}


class NotAllowed(Exception):
    """A part of a query that is not allowed; `name` is what was taken for a column."""

    def __init__(self, node: ast.expr, problem: str, name: str | None = None) -> None:
        super().__init__(problem)
        self.node = node
        self.name = name


@dataclass(frozen=True)
class Operand:
    """A column, a constant, or a sum of numbers.

    `read` gives its values for the rows of the facts, (N,), or () for a constant: float64 with NaN
    for a number, else objects with None.
    """

    node: ast.expr
    kind: Kind | Literal["none"]
    read: Callable[[pd.DataFrame], Array]
    is_constant: bool = False

    @property
    def is_number(self) -> bool:
        return self.kind == "number"

    def check_comparable(self, other: Operand) -> None:
        """Raise NotAllowed where one of the two is a number and the other is not."""
        if self.is_number != other.is_number:
            said = f"{_OF_KIND[self.kind]} cannot be compared with {_OF_KIND[other.kind]}"
            raise NotAllowed(other.node, said)


def column(node: ast.expr, name: str, kind: Kind) -> Operand:
    """Return the operand that reads the column `name`."""
    dtype = np.float64 if kind == "number" else object
    return Operand(node, kind, lambda facts: facts[name].to_numpy(dtype))


def constant(node: ast.expr, value: object) -> Operand:
    """Return the operand of a number, a text, True (1), False (0) or None; raises NotAllowed."""
    if value is None:
        return Operand(node, "none", lambda _: np.array(None, object), is_constant=True)
    if isinstance(value, str):
        return Operand(node, "category", lambda _: np.array(value, object), is_constant=True)
    if not isinstance(value, int | float):
        raise NotAllowed(node, f"{value!r} is neither a number nor a text")
    try:
        number = np.array(float(value))
    except OverflowError:
        raise NotAllowed(node, "this number is too large") from None
    return Operand(node, "number", lambda _: number, is_constant=True)


def sum_of(node: ast.expr, combine: Combine, left: Operand, right: Operand) -> Operand:
    """Return the operand of two numbers combined; what is divided by zero is missing.

    Raises NotAllowed for anything but numbers.
    """
    for side in (left, right):
        if not side.is_number:
            raise NotAllowed(side.node, f"{_OF_KIND[side.kind]} cannot be reckoned with")

    def read(facts: pd.DataFrame) -> Array:
        with np.errstate(all="ignore"):
            values = combine(left.read(facts), right.read(facts))
        return np.where(np.isfinite(values), values, np.nan)

    return Operand(node, "number", read, left.is_constant and right.is_constant)
