"""A sound model, and models that are blind somewhere: predictions for the tests of discovery."""

from statistics import NormalDist

import numpy as np
import pandas as pd

from ml_core.evaluation.predictions import Predictions, sigmoid

AUC = 0.94  # of the sound model, as of a small CNN on the real patches


def sound_logits(y_true, seed=0):
    """Return logits whose errors have nothing to do with what the patches look like."""
    separation = NormalDist().inv_cdf(AUC) * 2**0.5
    scores = separation * (y_true - 0.5) + np.random.default_rng([seed, 1]).normal(size=len(y_true))
    return separation * scores


def predictions_of(y_true, logit, index=None):
    index = np.arange(len(y_true)) if index is None else index
    return Predictions("valid", index, np.asarray(y_true), sigmoid(logit), logit)


def guessing(logit, mask, seed=0):
    """Return the logits of a model that sees nothing of the patches in `mask`: it guesses there."""
    blind = logit.copy()
    blind[mask] = np.random.default_rng([seed, 2]).permutation(logit[mask])
    return blind


def calling_normal(logit, mask):
    """Return the logits of a model to which every patch in `mask` is normal."""
    return np.where(mask, -np.abs(logit), logit)


def fabricate_facts(num_patches=1500, seed=0, **columns):
    """Return labels, and facts that have nothing to do with them or with each other."""
    generator = np.random.default_rng([seed, 3])
    facts = {
        "brightness": generator.uniform(60, 220, num_patches),
        "hue": generator.normal(310, 15, num_patches),
        "focus": generator.gamma(4, 4000, num_patches),
        "eosin": generator.uniform(0, 0.5, num_patches),
    }
    y_true = generator.integers(0, 2, num_patches)
    return y_true, pd.DataFrame({**facts, **columns})


def overlap(found, planted):
    """Return Jaccard's index of two masks."""
    return (found & planted).sum() / (found | planted).sum()


def confirmed(discovery):
    return [each for each in discovery.slices if each.is_confirmed]


def slides_of_one_stain(hue, num_slides=24, noise=4.0, seed=0):
    """Return slides of patches that share a hue more or less, as those of a slide do."""
    seen = np.nan_to_num(hue) + noise * np.random.default_rng([seed, 5]).normal(size=len(hue))
    rank = np.argsort(np.argsort(seen))
    return np.array([f"s{place}" for place in rank * num_slides // len(hue)], object)
