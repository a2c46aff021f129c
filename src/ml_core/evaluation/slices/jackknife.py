"""Standard errors over slides: every estimate once more without each slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml_core.evaluation.slices.few_slides import t_p_value, t_quantile
from ml_core.metrics.arrays import Floats, Ints, ratio


@dataclass(frozen=True)
class LeftOut:
    """An estimate, what it is `without` (G,) each slide, and how many equal slides they amount to.

    What follows is NaN where the estimate cannot be had without one of the slides.
    """

    value: float
    without: Floats
    num_effective: float

    @property
    def p_value(self) -> float:
        """Return the two-sided p-value of no difference, by Student's t."""
        error = jackknife_error(self.value, self.without)
        if self.value == 0 or error == 0:  # no slide changes it, so that slides cannot doubt it
            return 1.0 if self.value == 0 else 0.0
        return t_p_value(self.value / error, self.num_effective)

    def reach(self, level: float) -> float:
        """Return how far the interval of `level` reaches to each side."""
        return t_quantile(level, self.num_effective) * jackknife_error(self.value, self.without)


def jackknife_error(value: float, without: Floats) -> float:
    """Return the standard error of `value`, given what it is `without` (G,) each of G slides.

    CV3 of MacKinnon, Nielsen and Webb (Journal of Applied Econometrics 38, 2023), which rejects
    least too often where slides are few or unequal. NaN where the value needs one of the slides.
    """
    num_slides = len(without)
    return float(np.sqrt((num_slides - 1) / num_slides * ((without - value) ** 2).sum()))


def areas_without(labels: Ints, probs: Floats, slides: Ints, num_slides: int) -> Floats:
    """Return the ROC-AUC without each slide, shape (num_slides,); NaN where one class is left.

    The patches have `labels` (n,), `probs` (n,) and `slides` (n,), numbers below `num_slides`. The
    pairs of a tumour and a normal patch in right order, ties as half, that a slide takes part in
    are taken off: those of its tumours, those of its normal patches, less the ones within it, which
    are in both.
    """
    tumour = labels == 1
    rank = np.unique(probs, return_inverse=True)[1].astype(np.int64)
    beaten = _num_below(np.sort(rank[~tumour]), rank[tumour])
    own = rank + slides * (len(rank) + 1)  # ranks of one slide follow those of the slide before
    first = slides[tumour] * (len(rank) + 1)
    normal_own = np.sort(own[~tumour])
    beaten_own = _num_below(normal_own, own[tumour]) - np.searchsorted(normal_own, first)
    beating = int(tumour.sum()) - _num_below(np.sort(rank[tumour]), rank[~tumour])

    def by_slide(of: Ints, weights: Floats | None = None) -> Floats:
        return np.bincount(of, weights, num_slides).astype(np.float64)

    pairs = beaten.sum() - by_slide(slides[tumour], beaten - beaten_own)
    pairs -= by_slide(slides[~tumour], beating)
    num_tumours = tumour.sum() - by_slide(slides[tumour])
    num_normal = (~tumour).sum() - by_slide(slides[~tumour])
    return ratio(pairs, num_tumours * num_normal)


def _num_below(sorted_values: Ints, values: Ints) -> Floats:
    """Return how many of `sorted_values` are below each of `values`, ties as half."""
    left = np.searchsorted(sorted_values, values, side="left")
    right = np.searchsorted(sorted_values, values, side="right")
    below: Floats = (left + right) / 2
    return below
