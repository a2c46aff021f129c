"""Patches of slides that differ, where the model is as good in every slice unless it is told."""

from typing import NamedTuple

import numpy as np

from ml_core.evaluation.predictions import Predictions, sigmoid
from ml_core.evaluation.slices.slice import Slice


class World(NamedTuple):
    """Scores are normal about +separation (tumour) and -separation, moved by a shift per slide."""

    num_slides: int = 40
    per_slide: int = 60  # patches, the median; slides are lognormal
    shift: float = 0.5  # standard deviation of what a slide adds to all of its scores
    separation: float = 1.2

    def draw(self, seed: int):
        """Return labels, logits and the number of the slide of each patch, (N,) each."""
        generator = np.random.default_rng([seed, *self[:2]])
        sizes = generator.lognormal(np.log(self.per_slide), 0.7, self.num_slides)
        slides = np.repeat(np.arange(self.num_slides), np.maximum(2, sizes.astype(int)))
        prevalence = generator.beta(1, 1, self.num_slides)[slides]
        y_true = (generator.random(len(slides)) < prevalence).astype(int)
        shift = generator.normal(size=self.num_slides)[slides] * self.shift
        score = self.separation * (2 * y_true - 1) + shift + generator.normal(size=len(slides))
        return y_true, 2 * self.separation * score, slides


def favouring_slides(slides, seed: int, share: float = 0.2):
    """Return a mask of about `share` of the patches, most of some slides and few of others."""
    generator = np.random.default_rng([seed, 77])
    shares = generator.beta(share, 1 - share, slides.max() + 1)
    return generator.random(len(slides)) < shares[slides]


def nll_of(y_true, logit):
    return np.logaddexp(0, np.where(y_true == 1, -logit, logit))


def table_of(y_true, logit) -> Predictions:
    return Predictions("valid", np.arange(len(y_true)), np.asarray(y_true), sigmoid(logit), logit)


def slice_of(mask, name: str = "dark", **fields) -> Slice:
    return Slice(name, "light", "brightness < 90", np.asarray(mask, dtype=bool), **fields)
