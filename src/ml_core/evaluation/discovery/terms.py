"""The terms that rules are made of: runs of bins of every fact that may suggest.

A number is cut at its quantiles, and each run of neighbouring bins is a term: one end of the
number, or a band in its middle. A name is a bin of its own, and a term.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.slices.facts import FACTS
from ml_core.metrics.arrays import Floats, Ints

Masks = npt.NDArray[np.bool_]

# Steps of a fortieth, finer at the ends: models fail where patches are extreme.
QUANTILES = (0.01, *(step / 40 for step in range(1, 40)), 0.99)


@dataclass(frozen=True, eq=False)
class FactBins:
    """One fact in bins: `of_patch` int64 (N,), the last one for what is unknown.

    `edges` are the cuts between the other bins, or the names that these stand for.
    """

    fact: str
    of_patch: Ints
    num_known: int
    edges: tuple[float, ...] | tuple[str, ...]

    @property
    def is_named(self) -> bool:
        return isinstance(self.edges[0], str)

    def text(self, first: int, after: int) -> str:
        """Return the bins from `first` to before `after` as a query: ``brightness < 104.1``."""
        column = self.fact if self.fact.isidentifier() else f"`{self.fact}`"
        if self.is_named:
            return f"{column} == {self.edges[first]!r}"
        if first == 0:
            return f"{column} < {self.edges[after - 1]}"
        if after == self.num_known:
            return f"{column} >= {self.edges[first - 1]}"
        return f"{self.edges[first - 1]} <= {column} < {self.edges[after - 1]}"


class Terms:
    """All terms over some facts, laid side by side so that they are counted at once.

    `bins` (A, N) are the bins of all facts, numbered through; `runs` (T, 2) the first bin of each
    term and the one after its last; `fact_of` (T,) its fact, rising; `costs` (T,) the natural
    logarithm of how many terms of its kind there are: ends of numbers, bands, or names.
    """

    def __init__(self, facts: list[FactBins]) -> None:
        self.facts = facts
        sizes = [each.num_known + 1 for each in facts]
        self._starts = np.cumsum([0, *sizes])[:-1]
        self.num_bins = sum(sizes)
        every = [_runs(each) for each in facts]
        self.fact_of = np.repeat(np.arange(len(facts)), [len(runs) for runs in every])
        self._runs = np.concatenate([np.empty((0, 2), np.int64), *every])
        self.runs = self._runs + self._starts[self.fact_of, None]
        self.bins = np.array(
            [each.of_patch + start for each, start in zip(facts, self._starts, strict=True)]
        )
        self.costs = self._costs()

    def __len__(self) -> int:
        return len(self.runs)

    def holds(self, term: int) -> Masks:
        """Return for which patches the term holds, bool (N,)."""
        first, after = self.runs[term]
        bins = self.bins[self.fact_of[term]]
        holds: Masks = (bins >= first) & (bins < after)
        return holds

    def text(self, term: int) -> str:
        """Return the term as a query."""
        first, after = self._runs[term].tolist()
        fact: FactBins = self.facts[self.fact_of[term]]
        return fact.text(first, after)

    def _costs(self) -> Floats:
        num_known = np.array([each.num_known for each in self.facts], np.int64)[self.fact_of]
        is_named = np.array([each.is_named for each in self.facts], np.bool_)[self.fact_of]
        first, after = self._runs.T
        kind = np.where(is_named, 2, (first > 0) & (after < num_known))
        costs: Floats = np.log(np.bincount(kind)[kind])
        return costs


def number_terms(facts: pd.DataFrame) -> Terms:
    """Return the terms over the numbers among `facts` (N rows) that may suggest and vary."""
    binned = [_cut(name, facts[name].to_numpy(np.float64)) for name in _suggesting(facts, "number")]
    return Terms([each for each in binned if each is not None])


def name_terms(facts: pd.DataFrame) -> Terms:
    """Return the terms over the names among `facts` (N rows), such as slides, that vary."""
    binned = [_name(name, facts[name]) for name in _suggesting(facts, "category")]
    return Terms([each for each in binned if each.num_known > 1])


def _suggesting(facts: pd.DataFrame, kind: str) -> list[str]:
    return [
        name
        for name, fact in FACTS.items()
        if name in facts and fact.may_suggest and fact.kind == kind
    ]


def _cut(name: str, values: Floats) -> FactBins | None:
    """Return the bins between quantiles, rounded to four digits so that they can be read."""
    known = values[np.isfinite(values)]
    if len(known) == 0 or known.min() == known.max():
        return None
    rounded = {float(f"{cut:.4g}") for cut in np.quantile(known, QUANTILES, method="higher")}
    cuts = tuple(cut for cut in sorted(rounded) if known.min() < cut <= known.max())
    if not cuts:
        return None
    bins = np.searchsorted(np.array(cuts), values, side="right").astype(np.int64)
    bins[~np.isfinite(values)] = len(cuts) + 1
    return FactBins(name, bins, len(cuts) + 1, cuts)


def _name(fact: str, values: pd.Series) -> FactBins:
    names = tuple(sorted(set(values.dropna().astype(str))))
    place = {name: position for position, name in enumerate(names)}
    bins = np.array([place.get(str(value), len(names)) for value in values], np.int64)
    return FactBins(fact, bins, len(names), names)


def _runs(fact: FactBins) -> Ints:
    """Return the terms of one fact, (P, 2): every run of bins but the one of them all."""
    num = fact.num_known
    if fact.is_named:
        return np.stack([np.arange(num), np.arange(1, num + 1)], axis=1)
    first, last = np.triu_indices(num)
    runs = np.stack([first, last + 1], axis=1)
    return runs[runs[:, 1] - runs[:, 0] < num]
