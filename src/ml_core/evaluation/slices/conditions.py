"""The conditions that a query is built of, as functions of the facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ml_core.evaluation.slices.operand import Array, Operand
from ml_core.evaluation.slices.truth import Truth

Condition = Callable[[pd.DataFrame], Truth]


def always(value: bool) -> Condition:
    """Return the condition that holds for every patch, or fails for every one."""

    def held(facts: pd.DataFrame) -> Truth:
        everywhere = np.full(len(facts), value)
        return Truth(everywhere, ~everywhere)

    return held


def negated(condition: Condition) -> Condition:
    """Return the condition that `condition` fails."""
    return lambda facts: ~condition(facts)


def all_of(conditions: Sequence[Condition]) -> Condition:
    """Return the condition that all of `conditions` hold, of which there is one at least."""

    def held(facts: pd.DataFrame) -> Truth:
        truth = conditions[0](facts)
        for condition in conditions[1:]:
            truth = truth & condition(facts)
        return truth

    return held


def any_of(conditions: Sequence[Condition]) -> Condition:
    """Return the condition that one of `conditions` holds; with none of them it fails."""
    return negated(all_of([negated(each) for each in conditions] or [always(True)]))


def missing(operand: Operand) -> Condition:
    """Return the condition that the value is missing, which can always be told."""

    def held(facts: pd.DataFrame) -> Truth:
        absent = np.broadcast_to(pd.isna(operand.read(facts)), len(facts))
        return Truth(absent, ~absent)

    return held


def compared(left: Operand, compare: Callable[[Array, Array], Any], right: Operand) -> Condition:
    """Return the condition `compare`; with a missing value it cannot be told."""

    def held(facts: pd.DataFrame) -> Truth:
        first, second = left.read(facts), right.read(facts)
        known = np.broadcast_to(~(pd.isna(first) | pd.isna(second)), len(facts))
        holds = np.broadcast_to(np.asarray(compare(first, second), np.bool_), len(facts))
        return Truth(holds & known, ~holds & known)

    return held


def among_words(word: Operand, texts: Operand) -> Condition:
    """Return the condition that a constant word is one of those that a text names, spaced."""

    def held(facts: pd.DataFrame) -> Truth:
        wanted = word.read(facts).item()
        values = texts.read(facts)
        known = np.asarray(~pd.isna(values), np.bool_)
        named = [isinstance(text, str) and wanted in text.split() for text in values]
        holds = np.array(named, np.bool_)
        return Truth(holds, ~holds & known)

    return held
