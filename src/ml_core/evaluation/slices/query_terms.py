"""Which syntax a query may have: each allowed node of it, turned into a condition."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from ml_core.evaluation.slices.conditions import (
    Condition,
    all_of,
    always,
    among_words,
    any_of,
    compared,
    missing,
    negated,
)
from ml_core.evaluation.slices.facts import Kind
from ml_core.evaluation.slices.operand import (
    SUMS,
    Array,
    NotAllowed,
    Operand,
    column,
    constant,
    sum_of,
)

_COMPARISONS: dict[type[ast.cmpop], Callable[[Array, Array], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_SIGNS: dict[type[ast.operator], str] = {
    ast.Pow: "**",
    ast.Mod: "%",
    ast.FloorDiv: "//",
    ast.MatMult: "@",
    ast.BitXor: "^",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
# What people try, by the node that Python makes of it.
_REFUSED: dict[type[ast.expr], str] = {
    ast.Call: "a call",
    ast.Attribute: "a dot",
    ast.Subscript: "an index in square brackets",
    ast.Lambda: "lambda",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: ":=",
    ast.IfExp: "if ... else",
    ast.Starred: "a star",
    ast.Dict: "a dict",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
}


class Terms:
    """Turns syntax into conditions; `read` collects the columns that these look at.

    Only what is named here is turned; any other node raises NotAllowed, whatever Python's syntax
    comes to have.
    """

    def __init__(self, kinds: Mapping[str, Kind], backticked: Mapping[str, str]) -> None:
        self._kinds = kinds  # column -> kind of its fact
        self._backticked = backticked  # stand-in -> column
        self.read: set[str] = set()

    def condition(self, node: ast.expr) -> Condition:
        """Return the condition that `node` states; raises NotAllowed."""
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self.condition(each) for each in values]
                return all_of(parts) if isinstance(op, ast.And) else any_of(parts)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=inner):
                return negated(self.condition(inner))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                lefts = [left, *rights[:-1]]
                pairs = zip(lefts, ops, rights, strict=True)
                return all_of([self._comparison(*pair) for pair in pairs])
            case ast.Constant(value=bool(value)):
                return always(value)
        _refuse(node)
        raise NotAllowed(node, "a condition is needed here, such as brightness < 100")

    def operand(self, node: ast.expr) -> Operand:
        """Return the values that `node` stands for; raises NotAllowed."""
        match node:
            case ast.Name(id=name):
                return self._column(node, self._backticked.get(name, name))
            case ast.Constant(value=value):
                return constant(node, value)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in SUMS:
                return sum_of(node, SUMS[type(op)], self.operand(left), self.operand(right))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return sum_of(node, operator.sub, constant(node, 0), self.operand(inner))
        _refuse(node)
        raise NotAllowed(node, "a column, a number or a text in quotes is needed here")

    def _column(self, node: ast.expr, name: str) -> Operand:
        if name not in self._kinds:
            raise NotAllowed(node, f"there is no column {name!r}", name)
        self.read.add(name)
        return column(node, name, self._kinds[name])

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Condition:
        first = self.operand(left)
        if isinstance(op, ast.In | ast.NotIn):
            held = self._membership(first, right)
            return held if isinstance(op, ast.In) else negated(held)
        if type(op) not in _COMPARISONS:
            raise NotAllowed(right, "`is` cannot be used; write ==")
        second = self.operand(right)
        if "none" in (first.kind, second.kind):
            return _with_none(first, op, second)
        first.check_comparable(second)
        if not first.is_number and not isinstance(op, ast.Eq | ast.NotEq):
            raise NotAllowed(right, "texts have no order; write ==, != or in [...]")
        return compared(first, _COMPARISONS[type(op)], second)

    def _membership(self, left: Operand, right: ast.expr) -> Condition:
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            return any_of([_equal(left, self.operand(each)) for each in right.elts])
        texts = self.operand(right)
        is_word = left.is_constant and left.kind == "category"
        if texts.kind != "text" or not is_word:
            raise NotAllowed(right, "`in` needs a list in square brackets after it")
        return among_words(left, texts)


def _equal(left: Operand, member: Operand) -> Condition:
    if not member.is_constant:
        raise NotAllowed(member.node, "a list holds numbers, texts in quotes and None")
    if member.kind == "none":
        return _with_none(left, ast.Eq(), member)
    left.check_comparable(member)
    return compared(left, operator.eq, member)


def _with_none(first: Operand, op: ast.cmpop, second: Operand) -> Condition:
    value = second if first.kind == "none" else first
    if value.kind == "none" or not isinstance(op, ast.Eq | ast.NotEq):
        raise NotAllowed(second.node, "None stands for a missing value; write column == None")
    return missing(value) if isinstance(op, ast.Eq) else negated(missing(value))


def _refuse(node: ast.expr) -> None:
    """Raise NotAllowed where `node` is allowed nowhere, so that the message can name it."""
    if type(node) in _REFUSED:
        raise NotAllowed(node, f"{_REFUSED[type(node)]} is not allowed")
    if isinstance(node, ast.BinOp) and type(node.op) not in SUMS:
        raise NotAllowed(node, f"{_SIGNS[type(node.op)]} is not allowed")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        raise NotAllowed(node, "~ binds more tightly than a comparison; write not")
