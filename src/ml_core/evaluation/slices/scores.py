"""Every slice scored, and where the model is worse than elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.slices.differences import KINDS
from ml_core.evaluation.slices.false_discovery import benjamini_hochberg
from ml_core.evaluation.slices.known_slides import KnownSlides
from ml_core.evaluation.slices.one_slice import Rules, ScoredPatches, score_metrics, score_slice
from ml_core.evaluation.slices.slice import Slice
from ml_core.evaluation.slices.slice_score import STANDINGS, SliceScore, Standing
from ml_core.evaluation.slices.table import SliceTable


def score_slices(
    predictions: Predictions,
    threshold: float,
    slices: Sequence[Slice],
    *,
    slides: npt.NDArray[np.object_] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    min_per_class: int = 10,
    min_patches: int = 30,
    false_discovery_rate: float = 0.05,
) -> SliceTable:
    """Return the scores of each of `slices`, the worst first, beside those of the whole split.

    A slice has the metrics of `compute_metrics` with intervals, and what it differs by from the
    rest (`compute_differences`), with q-values (`benjamini_hochberg`) over all slices for each kind
    of difference. Below `min_patches` it is not scored, only said to be too small. With fewer than
    `min_per_class` tumours or normal patches it has no metric that needs them, and says so.

    What decides whether a slice is "worse" or "better" is the difference in error adjusted for
    class, where its q is at most `false_discovery_rate`: errors are what a user of the threshold
    meets. The other kinds have q-values of their own; a slice of lower recall or ROC-AUC that is
    not worse is a finding. Worst first is by standing, then by the low end of the difference in
    error: the excess that one can be sure of.

    `slides` (N,) names the slide of each patch, None where it is not known. Where all are known,
    and at least MIN_SLIDES, intervals are of a bootstrap of slides and tests doubt what slides may
    not repeat. A slice of fewer slides, such as a slide itself, or with fewer outside, is compared
    patch by patch, and its note says that this speaks of these slides alone.

    Raises RunError without labels; ValueError for a mask of another length or type, and for numbers
    that are not allowed.
    """
    rules = Rules(threshold, num_resamples, seed, level, min_per_class, min_patches)
    if not 0 < false_discovery_rate < 1:
        raise ValueError(f"false_discovery_rate is {false_discovery_rate}; allowed are 0..1.")
    known = KnownSlides.of(slides, len(predictions))
    patches = ScoredPatches.of(predictions, threshold, known)
    for piece in slices:
        _check_mask(piece, len(predictions))
    rows = _corrected([score_slice(patches, piece, rules) for piece in slices])
    rows = [replace(row, standing=_standing(row, false_discovery_rate)) for row in rows]
    everything = np.ones(len(predictions), dtype=np.bool_)
    return SliceTable(
        overall=score_metrics(patches, everything, rules, known.are_enough),
        rows=tuple(sorted(rows, key=_worst_first)),
        slides=known,
        level=level,
        num_resamples=num_resamples,
        false_discovery_rate=false_discovery_rate,
        min_patches=min_patches,
        min_per_class=min_per_class,
    )


def _check_mask(piece: Slice, num_patches: int) -> None:
    if piece.mask.shape != (num_patches,) or piece.mask.dtype != np.bool_:
        raise ValueError(
            f"the mask of slice {piece.name!r} is {piece.mask.dtype} of shape {piece.mask.shape}; "
            f"needed is bool of shape ({num_patches},), one for each prediction."
        )


def _corrected(rows: list[SliceScore]) -> list[SliceScore]:
    """Return the rows with q-values, over all of them and for each kind of difference apart."""
    for kind in KINDS:
        q_values = benjamini_hochberg([row.difference(kind).p for row in rows])
        rows = [
            replace(row, differences={**row.differences, kind: replace(row.difference(kind), q=q)})
            if row.differences
            else row
            for row, q in zip(rows, q_values.tolist(), strict=True)
        ]
    return rows


def _standing(row: SliceScore, false_discovery_rate: float) -> Standing:
    error = row.difference("error")
    if math.isnan(error.q):
        return "not scored"
    if error.q > false_discovery_rate:
        return "not told apart"
    return "worse" if error.value > 0 else "better"


def _worst_first(row: SliceScore) -> tuple[int, float, int]:
    sure = row.difference("error").interval.low
    return STANDINGS.index(row.standing), -sure if math.isfinite(sure) else math.inf, -row.n
