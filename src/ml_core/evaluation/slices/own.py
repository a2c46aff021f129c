"""Slices of the user's own: named queries."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ml_core.evaluation.slices.query import compile_query
from ml_core.evaluation.slices.slice import Slice


def own_slices(queries: Mapping[str, str], facts: pd.DataFrame) -> list[Slice]:
    """Return a slice for each query, by its name, in their order; see `compile_query`.

    A slice that holds no patch, or all of them, is kept, and `said` says so; it also says of how
    many patches it is not known, for want of a value: they are not in it. Raises ConfigError for a
    query that is wrong, and for one that reads what is known of none of these patches.
    """
    return [_own_slice(name, text, facts) for name, text in queries.items()]


def _own_slice(name: str, text: str, facts: pd.DataFrame) -> Slice:
    truth = compile_query(text, list(facts.columns), name).truth(facts)
    mask = truth.holds
    unknown = int((~truth.holds & ~truth.fails).sum())
    said = [" ".join(text.split())]
    if not mask.any():
        said.append("holds no patch")
    elif mask.all():
        said.append("holds every patch, so that there is no rest")
    if unknown:
        said.append(f"not known of {unknown:,} {'patch' if unknown == 1 else 'patches'}")
    return Slice(name, "own", text, mask, "own", "; ".join(said))
