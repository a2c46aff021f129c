"""Which patches two models call differently: mended, broken, and wrong with both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.report.run_facts import RunFacts

PER_GALLERY = 16


@dataclass(frozen=True)
class Operated:
    """Labelled predictions, and from where on they say tumour."""

    predictions: Predictions
    threshold: float

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        called = self.predictions.y_prob >= self.threshold
        right: npt.NDArray[np.bool_] = called == (self.predictions.labels == 1)
        return right


@dataclass(frozen=True)
class Tally:
    """How many patches are right with both runs, with one of them, and with neither."""

    both_right: int
    only_a: int
    only_b: int
    both_wrong: int

    @property
    def p(self) -> float:
        """Two-sided p of McNemar's test, exact: that as many are mended as broken."""
        return mcnemar_p(self.only_a, self.only_b)


@dataclass(frozen=True)
class ChangedPatch:
    """A patch that is right with one run only, with the probability of tumour of both."""

    index: int
    y_true: int
    prob_a: float
    prob_b: float


@dataclass(frozen=True)
class ChangedSides:
    """The patches that both runs were scored on; `mended` are right with B only, `broken` with A.

    Those are the patches whose log-odds moved furthest.
    """

    split: str
    n: int
    num_not_shared: int
    thresholds: tuple[float, float]
    all: Tally
    tumour: Tally
    normal: Tally
    mended: Sequence[ChangedPatch]
    broken: Sequence[ChangedPatch]

    @property
    def shown(self) -> list[int]:
        """The rows whose pictures are wanted."""
        return [patch.index for patch in (*self.mended, *self.broken)]


def operated(facts: RunFacts) -> Operated | None:
    """Return the predictions that metrics.json scores, at its threshold; None without either."""
    if facts.labelled is None or facts.scores is None:
        return None
    return Operated(facts.labelled, float(facts.scores["threshold"]))


def change_sides(
    a: Operated | None, b: Operated | None, names: tuple[str, str]
) -> tuple[ChangedSides | None, str]:
    """Return which patches changed sides; or None, and why that cannot be said."""
    if a is None or b is None:
        missing = " and ".join(name for name, one in zip(names, (a, b), strict=True) if one is None)
        return None, f"there are no scored predictions with labels of {missing}."
    tables = a.predictions, b.predictions
    if tables[0].split != tables[1].split:
        return None, f"one was scored on {tables[0].split}, the other on {tables[1].split}."
    index, in_a, in_b = np.intersect1d(tables[0].index, tables[1].index, return_indices=True)
    if len(index) == 0:
        return None, "they were scored on different patches: none is in both tables."
    labels = tables[0].labels[in_a]
    differing = int((labels != tables[1].labels[in_b]).sum())
    if differing:
        return None, f"{differing:,} of {len(index):,} patches have another label in one of them."
    right_a, right_b = a.is_right[in_a], b.is_right[in_b]
    moved = np.abs(tables[1].logit[in_b] - tables[0].logit[in_a])

    def listed(mask: npt.NDArray[np.bool_]) -> list[ChangedPatch]:
        rows = np.flatnonzero(mask)
        rows = rows[np.lexsort((index[rows], -moved[rows]))][:PER_GALLERY]
        return [
            ChangedPatch(
                int(index[row]),
                int(labels[row]),
                float(tables[0].y_prob[in_a[row]]),
                float(tables[1].y_prob[in_b[row]]),
            )
            for row in rows
        ]

    return (
        ChangedSides(
            split=tables[0].split,
            n=len(index),
            num_not_shared=len(tables[0]) + len(tables[1]) - 2 * len(index),
            thresholds=(a.threshold, b.threshold),
            all=_tally(right_a, right_b, np.ones(len(index), bool)),
            tumour=_tally(right_a, right_b, labels == 1),
            normal=_tally(right_a, right_b, labels == 0),
            mended=listed(~right_a & right_b),
            broken=listed(right_a & ~right_b),
        ),
        "",
    )


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p that patches change sides as often one way as the other.

    The binomial test of the changed patches at one half (McNemar, Psychometrika 12, 1947; exact
    as in Fagerland et al., BMC Med. Res. Methodol. 13:91, 2013). 1 where none changed.
    """
    from scipy.stats import binomtest

    changed = only_a + only_b
    return float(binomtest(only_b, changed).pvalue) if changed else 1.0


def _tally(
    right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]
) -> Tally:
    return Tally(
        both_right=int((right_a & right_b & among).sum()),
        only_a=int((right_a & ~right_b & among).sum()),
        only_b=int((~right_a & right_b & among).sum()),
        both_wrong=int((~right_a & ~right_b & among).sum()),
    )
