"""Slices of the user's own: named queries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.query import compile_query
from ml_core.evaluation.slices.slice import Slice


def own_slices(queries: Mapping[str, str], facts: pd.DataFrame) -> list[Slice]:
    """Return a slice for each query, by its name, in their order; see `compile_query`.

    A slice that holds no patch, or all of them, is kept, and `said` says so; it also says of how
    many patches it is not known, for want of a value: they are not in it. One that reads what is
    known of none of these patches, such as slides without a meta file, holds none. Raises
    ConfigError for a query that is wrong whatever the patches.
    """
    return [_own_slice(name, text, facts) for name, text in queries.items()]


def _own_slice(name: str, text: str, facts: pd.DataFrame) -> Slice:
    query = compile_query(text, list(dict.fromkeys([*FACTS, *facts.columns])), name)
    shown = " ".join(text.split())
    if unknown_facts := [column for column in query.columns if column not in facts]:
        nothing = np.zeros(len(facts), np.bool_)
        why = f"{shown}; known of no patch, for want of {', '.join(unknown_facts)}"
        return Slice(name, "own", text, nothing, "own", why)
    truth = query.truth(facts)
    mask = truth.holds
    unknown = int((~truth.holds & ~truth.fails).sum())
    said = [shown]
    if not mask.any():
        said.append("holds no patch")
    elif mask.all():
        said.append("holds every patch, so that there is no rest")
    if unknown:
        said.append(f"not known of {unknown:,} {'patch' if unknown == 1 else 'patches'}")
    return Slice(name, "own", text, mask, "own", "; ".join(said))
