"""Slices suggested by one half of the patches: rules over facts, and clusters of features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ml_core.evaluation.discovery.discovered import FoundBy, Target
from ml_core.evaluation.discovery.halves import Halves
from ml_core.evaluation.discovery.outcomes import Outcomes, log_likelihood_ratio
from ml_core.evaluation.discovery.rules import MAX_SHARE, MIN_PATCHES, RuleSearch
from ml_core.evaluation.slices.query import compile_query
from ml_core.evaluation.slices.slice import Slice
from ml_core.metrics.arrays import Floats, Ints

# Short of 0, where a slice pays for its words: the other half is there to tell what is chance, and
# weak failures are found that would not be. Far below, chance alone would fill the list.
MIN_GAIN = -3.0


@dataclass(frozen=True, eq=False)
class Suggestion:
    """A slice to be confirmed on `halves`, apart from what `outcomes` have explained already."""

    slice: Slice
    found_by: FoundBy
    target: Target
    gain: float
    halves: Halves
    outcomes: Outcomes
    beside: tuple[str, ...] = ()


def suggest_rules(
    search: RuleSearch, facts: pd.DataFrame, halves: Halves, outcomes: Outcomes, at_most: int
) -> Iterator[Suggestion]:
    """Yield the best rule, then the best given the first, and so on, while they gain enough.

    Masks are those of the rules as queries over `facts` (N rows).
    """
    before: list[Slice] = []
    while len(before) < at_most:
        rule = search.best(outcomes)
        if rule is None or rule.gain < MIN_GAIN:
            return
        where = search.text(rule)
        mask = compile_query(where, facts.columns).mask(facts)
        found = Slice(where, "discovered", where, mask, "discovered")
        beside = tuple(each.name for each in before if (each.mask & mask).any())
        yield Suggestion(found, "rule", rule.target, rule.gain, halves, outcomes, beside)
        outcomes = outcomes.explained_by(mask)
        before.append(found)


def suggest_clusters(
    clusters: Ints, halves: Halves, outcomes: Outcomes, at_most: int
) -> list[Suggestion]:
    """Return the clusters (N,) with more errors, of both classes together, that gain most.

    Never for missed tumours or false alarms alone: features know what the model says, and where it
    says normal, every tumour is missed.
    """
    num_clusters = int(clusters.max()) + 1
    gains = _gains(clusters, num_clusters, outcomes)
    return [
        Suggestion(
            Slice(
                name=f"cluster {cluster + 1} of {num_clusters}",
                group="discovered",
                where="",
                mask=clusters == cluster,
                kind="discovered",
            ),
            "cluster",
            "errors",
            float(gains[cluster]),
            halves,
            outcomes,
        )
        for cluster in np.argsort(-gains, kind="stable")[:at_most].tolist()
        if gains[cluster] >= MIN_GAIN
    ]


def _gains(clusters: Ints, num_clusters: int, outcomes: Outcomes) -> Floats:
    """Return the gain of each cluster, (K,), as that of a rule; -inf where it is too small."""
    suggests, wrong = outcomes.suggests, outcomes.suggests & outcomes.is_wrong
    n = np.bincount(clusters[suggests], minlength=num_clusters)
    errors = np.bincount(clusters[wrong], minlength=num_clusters)
    expected = np.zeros(num_clusters)
    np.add.at(expected, clusters[suggests], outcomes.expected[suggests])
    ratios = log_likelihood_ratio(n, errors, expected, int(n.sum()), int(errors.sum()))
    is_sized = (n >= MIN_PATCHES) & (n <= MAX_SHARE * n.sum())
    return np.where(is_sized, ratios - np.log(num_clusters), -np.inf)
