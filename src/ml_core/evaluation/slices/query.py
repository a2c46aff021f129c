"""Queries over patch facts: pandas' query syntax, as far as it is harmless."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.errors import ConfigError, did_you_mean
from ml_core.evaluation.slices.conditions import Condition
from ml_core.evaluation.slices.facts import FACTS, Kind
from ml_core.evaluation.slices.operand import NotAllowed
from ml_core.evaluation.slices.query_terms import Terms
from ml_core.evaluation.slices.query_text import PythonText, QueryTextError, to_python
from ml_core.evaluation.slices.truth import Truth

MAX_LENGTH = 500  # characters; the longest of the usual slices has 70
MAX_DEPTH = 40  # of brackets and operators within each other; far below the interpreter's stack
ALLOWED = (
    "comparisons (also chained), and, or, not, in [...], + - * /, brackets, numbers, texts in "
    "quotes, True, False and None"
)
# What was meant, by the character that Python cannot read.
_MEANT = {
    "=": "write == to compare",
    "&": "write one &, or and",
    "|": "write one |, or or",
    "@": "a slice knows no variables",
    "!": "write not",
}
OF_THE_MODEL = frozenset({"y_prob", "y_pred", "y_true", "logit", "prob", "loss", "error"})


@dataclass(frozen=True, eq=False)
class Query:
    """A condition on patch facts that was checked when it was made."""

    text: str
    name: str  # of the slice, for messages
    columns: tuple[str, ...]  # that it reads, in the order of their names
    _condition: Condition

    def mask(self, facts: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return for which rows of `facts` the condition is known to hold, bool (N,).

        Raises ConfigError where `facts` lack a column that the query reads.
        """
        return self.truth(facts).holds

    def truth(self, facts: pd.DataFrame) -> Truth:
        """Return where the condition holds, where it fails, and so where it cannot be told."""
        for column in self.columns:
            if column not in facts:
                raise ConfigError(
                    f"{_where(self.name)}{self.text!r} reads {column}, which is known of none of "
                    f"these patches. Known are: {', '.join(facts.columns)}."
                )
        return self._condition(facts)


def compile_query(text: str, columns: Collection[str], name: str = "") -> Query:
    """Return the query `text` over `columns`; nothing of it is evaluated but by our own rules.

    Columns that are in FACTS are of the kind that is said there, others are numbers. Allowed are
    the things of ALLOWED, with the names of `columns`, bare or in backticks. `&`, `|` and `~` are
    and, or and not, the first two with the precedence of these words, as in pandas. `x == None`
    holds where x is missing; any other comparison with a missing value, or with a number divided by
    zero, can neither hold nor fail. A text stands `in` audit flags where it is one of them.

    Raises ConfigError, naming the slice `name`, the place, what is allowed and the nearest column,
    for anything else, for a comparison of text with numbers, more than MAX_LENGTH characters and
    more than MAX_DEPTH things within each other.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(
            f"{_where(name)}the query has {len(text):,} characters; allowed are {MAX_LENGTH}. "
            "Make two slices of it."
        )
    tree, python = _parse(text, name)
    terms = Terms({each: _kind_of(each) for each in columns}, python.names)
    try:
        condition = terms.condition(tree)
    except NotAllowed as problem:
        place = _place_of(problem.node, python)
        raise _refused(text, name, place, str(problem), _advice(problem, columns)) from None
    return Query(text, name, tuple(sorted(terms.read)), condition)


def _parse(text: str, name: str) -> tuple[ast.expr, PythonText]:
    try:
        python = to_python(text)
    except QueryTextError as problem:
        raise _refused(text, name, problem.place, str(problem)) from None
    if not python.text:
        raise ConfigError(f"{_where(name)}the query is empty. Allowed are {ALLOWED}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python only warns of, as '\\d', is no query
            tree = ast.parse(python.text, mode="eval").body
    except SyntaxError as error:
        place = python.place_of(max((error.offset or 1) - 1, 0))
        reason = _MEANT.get(text[place], error.msg)
        raise _refused(text, name, place, f"this is no condition ({reason})") from None
    except (ValueError, RecursionError, MemoryError, Warning) as error:
        raise _refused(text, name, 0, f"this cannot be parsed ({error})") from None
    if _depth(tree) > MAX_DEPTH:
        too_deep = f"more than {MAX_DEPTH} brackets and operators are within each other"
        raise _refused(text, name, 0, too_deep)
    return tree, python


def _depth(tree: ast.expr) -> int:
    """Return how many nodes are within each other; without recursion, which it guards."""
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        children = (each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr))
        waiting += [(child, depth + 1) for child in children]
    return deepest


def _kind_of(column: str) -> Kind:
    return FACTS[column].kind if column in FACTS else "number"


def _advice(problem: NotAllowed, columns: Collection[str]) -> str:
    """Return what a reader should know of a name that is no column; "" for another problem."""
    if problem.name is None:
        return ""
    named = f" The columns here are: {', '.join(columns)}."
    if problem.name in OF_THE_MODEL:
        return f"{named} A slice is about what the patch is, never about what the model says of it."
    if problem.name in FACTS:
        return f"{named} {problem.name} is known of none of these patches."
    return named + did_you_mean(problem.name, columns)


def _place_of(node: ast.expr, python: PythonText) -> int:
    # ast counts bytes of UTF-8, and lines, of which there is one but for a text in quotes
    before = python.text.encode()[: node.col_offset].decode(errors="ignore")
    return python.place_of(len(before))


def _refused(text: str, name: str, place: int, problem: str, advice: str = "") -> ConfigError:
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return ConfigError(
        f"{_where(name)}{problem}, at character {place + 1} of {shown!r}. "
        f"Allowed are {ALLOWED}.{advice}"
    )


def _where(name: str) -> str:
    return f"slice {name!r}: " if name else "query: "
