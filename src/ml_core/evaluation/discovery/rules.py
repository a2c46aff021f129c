"""Rules such as ``brightness < 104.1 and focus < 9000``, searched for on the patches that suggest.

A beam search (Lavrac et al., JMLR 5, 2004): each of the best rules so far is tried with each
further term. What a rule gains is paid for by what it costs to name it, so that a term too many,
or a slice that only chance makes bad, is not worth its words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.discovery.discovered import Target
from ml_core.evaluation.discovery.outcomes import CLASSES, Outcomes, log_likelihood_ratio
from ml_core.evaluation.discovery.terms import Terms
from ml_core.metrics.arrays import Floats, Ints

BEAM = 10
MIN_PATCHES = 15  # in the half that suggests: 30 in all, as for a slice that is scored
MAX_SHARE = 1 / 3  # of those the target can go wrong on: a broad slice hides a narrow one in it

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """Terms that hold together, rising, and what goes wrong there.

    `gain` is the logarithm of how much likelier the errors are with the rule, less what its terms
    cost: positive where the errors are told more shortly with the rule than without (Rissanen,
    Automatica 14, 1978).
    """

    terms: tuple[int, ...]
    target: Target
    gain: float


class RuleSearch:
    """Finds the best rule for given outcomes; counts what it compares in `num_tried`."""

    def __init__(self, terms: Terms, max_terms: int) -> None:
        self.terms, self.max_terms, self.num_tried = terms, max_terms, 0

    def best(self, outcomes: Outcomes) -> Rule | None:
        """Return the rule with the largest gain; None where no slice is large enough."""
        beam: list[Rule] = [Rule((), "errors", 0.0)]
        found: list[Rule] = []
        for _ in range(self.max_terms if len(self.terms) else 0):
            grown = [rule for parent in beam for rule in self._longer(parent.terms, outcomes)]
            best_first = {each.terms: each for each in sorted(grown, key=_rank, reverse=True)}
            beam = sorted(best_first.values(), key=_rank)[:BEAM]
            found += beam
        return self._refined(min(found, key=_rank), outcomes) if found else None

    def holds(self, terms: tuple[int, ...]) -> Masks:
        """Return for which patches all of `terms` hold, bool (N,)."""
        holds = np.ones(self.terms.bins.shape[1], np.bool_)
        for term in terms:
            holds &= self.terms.holds(term)
        return holds

    def text(self, rule: Rule) -> str:
        """Return the rule as a query."""
        return " and ".join(self.terms.text(term) for term in rule.terms)

    def _longer(self, terms: tuple[int, ...], outcomes: Outcomes) -> list[Rule]:
        """Return for each target, and each fact not in `terms`, the best rule of one term more."""
        inside = np.flatnonzero(outcomes.suggests & self.holds(terms))
        used = np.isin(self.terms.fact_of, self.terms.fact_of[list(terms)])
        price = float(self.terms.costs[list(terms)].sum())
        rules = []
        for target in CLASSES:
            gains = self._ratios(inside, outcomes, target) - self.terms.costs - price
            gains[used] = -np.inf
            rules += [
                Rule(tuple(sorted((*terms, term))), target, float(gains[term]))
                for term in _best_of_each(gains, self.terms.fact_of)
            ]
        return rules

    def _ratios(self, inside: Ints, outcomes: Outcomes, target: Target) -> Floats:
        """Return the log-likelihood ratio of each term `inside`, (T,); -inf for a wrong size."""
        concerned = outcomes.concerned(target)
        total = outcomes.suggests & concerned
        inside = inside[concerned[inside]]
        wrong = inside[outcomes.is_wrong[inside]]
        n = self._counts(inside).astype(np.int64)
        errors = self._counts(wrong).astype(np.int64)
        expected = self._counts(inside, outcomes.expected[inside])
        num, num_errors = int(total.sum()), int((total & outcomes.is_wrong).sum())
        ratios = log_likelihood_ratio(n, errors, expected, num, num_errors)
        is_sized = (n >= MIN_PATCHES) & (n <= MAX_SHARE * num)
        self.num_tried += int(is_sized.sum())
        ratios[~is_sized] = -np.inf
        return ratios

    def _counts(self, patches: Ints, weights: Floats | None = None) -> Floats:
        """Return the sum of the `weights` of `patches` over each term, (T,)."""
        bins = self.terms.bins[:, patches].ravel()
        every = None if weights is None else np.tile(weights, len(self.terms.bins))
        before = np.zeros(self.terms.num_bins + 1)
        np.cumsum(np.bincount(bins, every, self.terms.num_bins), out=before[1:])
        counts: Floats = before[self.terms.runs[:, 1]] - before[self.terms.runs[:, 0]]
        return counts

    def _refined(self, rule: Rule, outcomes: Outcomes) -> Rule:
        """Return the rule after choosing each term anew, given the others, while that gains."""
        while True:
            before = rule
            for term in before.terms:
                others = tuple(each for each in rule.terms if each != term)
                rule = min([rule, *self._longer(others, outcomes)], key=_rank)
            if rule.gain <= before.gain:
                return before


def _best_of_each(gains: Floats, fact_of: Ints) -> list[int]:
    """Return the term with the largest gain of each fact, where one is large enough."""
    starts = np.flatnonzero(np.diff(fact_of, prepend=-1))
    ends = [*starts[1:], len(gains)]
    best = [
        int(start + np.argmax(gains[start:end])) for start, end in zip(starts, ends, strict=True)
    ]
    return [term for term in best if gains[term] > -np.inf]


def _rank(rule: Rule) -> tuple[float, int, tuple[int, ...]]:
    return (-rule.gain, len(rule.terms), rule.terms)
