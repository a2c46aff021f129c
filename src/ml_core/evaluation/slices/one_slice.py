"""One slice scored: its metrics, its differences, and its worst patches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.slices.clustered import clustered_intervals
from ml_core.evaluation.slices.differences import TUMOUR, compute_differences
from ml_core.evaluation.slices.error_counts import Bools
from ml_core.evaluation.slices.known_slides import KnownSlides
from ml_core.evaluation.slices.limits import few_slides, missing_rest, short_classes, too_small
from ml_core.evaluation.slices.slice import Slice
from ml_core.evaluation.slices.slice_score import Score, SliceScore
from ml_core.metrics import HIGHER_IS_BETTER, compute_intervals, compute_metrics
from ml_core.metrics.arrays import (
    Floats,
    Ints,
    check_resampling,
    check_threshold,
    checked,
    checked_losses,
)
from ml_core.metrics.interval import UNDEFINED

MOST_EXAMPLES = 12
# What is defined without patches of the other class.
_OF_ONE_CLASS = (frozenset({"specificity"}), frozenset({"recall"}))
_OF_ALL_PATCHES = frozenset({"accuracy", "brier", "loss"})


@dataclass(frozen=True)
class Rules:
    """How a slice is scored, and how many patches that takes."""

    threshold: float
    num_resamples: int
    seed: int
    level: float
    min_per_class: int
    min_patches: int

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_resampling(self.num_resamples, self.level)


@dataclass(frozen=True)
class ScoredPatches:
    """The patches of a split with what a model says of them, all (N,)."""

    index: Ints
    labels: Ints
    probs: Floats
    losses: Floats
    wrong: Bools
    slides: KnownSlides

    @classmethod
    def of(cls, predictions: Predictions, threshold: float, slides: KnownSlides) -> ScoredPatches:
        """Return the patches of a table; raises RunError where it has no labels."""
        labels, probs = checked(predictions.labels, predictions.y_prob)
        losses = checked_losses(labels, probs, predictions.nll)
        wrong = (probs >= threshold) != (labels == TUMOUR)
        return cls(predictions.index, labels, probs, losses, wrong, slides)


def score_slice(patches: ScoredPatches, piece: Slice, rules: Rules) -> SliceScore:
    """Return the row of one slice, without standing and q-values, which take all slices."""
    inside, slides = piece.mask, patches.slides
    row = SliceScore(
        piece,
        n=len(piece),
        positives=int(patches.labels[inside].sum()),
        num_slides=slides.num_of(inside),
        examples=_examples(patches, inside),
    )
    reason = too_small(row.n, row.positives, rules.min_patches, rules.min_per_class)
    if reason:
        return replace(row, too_small=reason)
    few = few_slides(patches.labels, inside, slides, rules.min_per_class)
    clustered = slides.are_enough and not few
    notes = (
        short_classes(row.n, row.positives, rules.min_per_class),
        missing_rest(patches.labels, inside, rules.min_per_class),
        few,
    )
    return replace(
        row,
        clustered=clustered,
        note=" ".join(filter(None, notes)),
        metrics=score_metrics(patches, inside, rules, clustered, rules.min_per_class),
        differences=compute_differences(
            patches.labels,
            patches.probs,
            inside,
            slides.numbers if clustered else None,
            threshold=rules.threshold,
            level=rules.level,
            min_per_class=rules.min_per_class,
        ),
    )


def score_metrics(
    patches: ScoredPatches, inside: Bools, rules: Rules, clustered: bool, min_per_class: int = 0
) -> dict[str, Score]:
    """Return every metric of the patches `inside`, in intervals over slides where `clustered`.

    A metric that needs patches of a class of which there are fewer than `min_per_class` is NaN.
    """
    labels, probs, losses = patches.labels[inside], patches.probs[inside], patches.losses[inside]
    values = compute_metrics(labels, probs, rules.threshold, nll=losses)
    resampling = (rules.threshold, rules.num_resamples, rules.level, rules.seed)
    if clustered and patches.slides.numbers is not None:
        numbers = patches.slides.numbers[inside]
        intervals = clustered_intervals(labels, probs, numbers, *resampling, nll=losses)
    else:
        intervals = compute_intervals(labels, probs, *resampling, nll=losses)
    kept = _scored_metrics(labels, min_per_class)
    return {
        name: Score(values[name], intervals[name]) if name in kept else Score(np.nan, UNDEFINED)
        for name in HIGHER_IS_BETTER
    }


def _scored_metrics(labels: Ints, min_per_class: int) -> frozenset[str]:
    """Return the names of the metrics that the classes with enough patches allow."""
    enough = np.bincount(labels, minlength=2) >= min_per_class
    if enough.all():
        return frozenset(HIGHER_IS_BETTER)
    return _OF_ALL_PATCHES.union(*(_OF_ONE_CLASS[each] for each in np.flatnonzero(enough)))


def _examples(patches: ScoredPatches, inside: Bools) -> tuple[int, ...]:
    """Return rows in the source file: wrong calls first, of each the largest loss first."""
    rows = np.flatnonzero(inside)
    order = np.lexsort((patches.index[rows], -patches.losses[rows], ~patches.wrong[rows]))
    return tuple(patches.index[rows[order[:MOST_EXAMPLES]]].tolist())
