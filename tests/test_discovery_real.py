"""Failures planted on real patches: what is found of them, and what is reported that is none.

A model that is blind to some patches guesses there, or calls them all normal. Each planted slice is
about a tenth of the patches.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from measured import measure_table
from planted_failures import (
    calling_normal,
    confirmed,
    guessing,
    overlap,
    predictions_of,
    slides_of_one_stain,
    sound_logits,
)
from real_patches import read_patches

from ml_core.evaluation.discovery import discover_slices
from ml_core.evaluation.slices.patch_facts import patch_facts

FAILURES = ("dark", "one hue", "one slide", "dark and blurred")
BLINDNESS = {
    "guesses": guessing,
    "calls normal": lambda logit, mask, seed: calling_normal(logit, mask),
}
NUMBERS = ("brightness", "contrast", "hue", "saturation", "haematoxylin", "eosin", "focus")


class RealPatches:
    """Labels, facts and copies of real patches, with made-up slides: PCam names none here."""

    def __init__(self, folder, *splits):
        tables = [table for split in splits for table in measured(folder, split)]
        rows = pd.concat(tables, ignore_index=True)
        self.y_true = rows["label"].to_numpy(np.int64)
        self.groups = rows["content_hash"].to_numpy(object)
        self.facts = patch_facts(rows)
        self.slides = slides_of_one_stain(self.facts["hue"].to_numpy(), len(rows) // 100)

    def planted(self, failure):
        """Return the patches that a failure is about, bool (N,)."""
        if failure == "one slide":
            return self.slides == self.mixed_slide()
        brightness, hue, focus = (self.facts[name] for name in ("brightness", "hue", "focus"))
        planted = {
            "dark": brightness < brightness.quantile(0.1),
            "one hue": hue.between(hue.quantile(0.42), hue.quantile(0.53)),
            "dark and blurred": (brightness < brightness.quantile(0.35))
            & (focus < focus.quantile(0.35)),
        }
        return planted[failure].to_numpy()

    def mixed_slide(self):
        """Return the slide whose classes are nearest to equal: guessing is seen on no other."""
        shares = pd.Series(self.y_true).groupby(self.slides).mean()
        return (shares - 0.5).abs().idxmin()

    def discover(self, logit, failure="", seed=0):
        """Return the discovery; slides are known only where one of them fails."""
        predictions = predictions_of(self.y_true, logit)
        facts, slides = self.facts, None
        if failure == "one slide":
            facts, slides = facts.assign(slide=self.slides), self.slides
        return discover_slices(
            predictions, 0.5, facts, slides=slides, groups=self.groups, seed=seed
        )


def measured(folder, split, block=2000):
    """Yield the measured patches of a split, block by block."""
    for first in itertools.count(step=block):
        levels, labels = read_patches(folder, split, slice(first, first + block))
        if len(levels) == 0:
            return
        yield measure_table(levels, labels, split)


@pytest.fixture(scope="module")
def patches(real_pcam):
    return RealPatches(real_pcam, "valid", "test")


def is_found(discovery, planted):
    """Return whether a slice of the first three is confirmed and more like the planted than not."""
    return any(overlap(each.slice.mask, planted) > 0.5 for each in confirmed(discovery)[:3])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_planted_on_3000_real_patches_is_among_the_first_three(
    patches, failure, blindness
):
    planted = patches.planted(failure)
    logit = BLINDNESS[blindness](sound_logits(patches.y_true), planted, 0)
    discovery = patches.discover(logit, failure)
    assert is_found(discovery, planted)
    assert discovery.slices[0].confirmed.q < 0.05


def test_a_sound_model_on_relabelled_real_slices_raises_at_most_one_alarm_in_20(patches):
    alarms = 0
    for seed in range(20):
        order = np.random.default_rng([seed, 6]).permutation(len(patches.y_true))[:1500]
        logit = sound_logits(patches.y_true, seed)[:1500]
        facts = patches.facts.iloc[order].reset_index(drop=True)
        predictions = predictions_of(patches.y_true[:1500], logit)
        alarms += discover_slices(predictions, 0.5, facts, seed=seed).num_confirmed > 0
    assert alarms <= 1


def test_a_planted_failure_is_found_beside_those_of_a_model_fitted_on_real_patches(
    patches, real_pcam
):
    from sklearn.ensemble import HistGradientBoostingClassifier

    levels, labels = read_patches(real_pcam, "train", slice(0, 3000))
    fitted_on = patch_facts(measure_table(levels, labels))
    model = HistGradientBoostingClassifier(max_iter=40, random_state=0)
    model.fit(fitted_on[list(NUMBERS)], labels)
    logit = model.decision_function(patches.facts[list(NUMBERS)])
    dark = patches.planted("dark")
    assert is_found(patches.discover(calling_normal(logit, dark), "dark"), dark)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("splits", "num_found"),
    [
        (("valid",), {"guesses": 0.5, "calls normal": 0.9}),
        (("valid", "test"), {"guesses": 0.75, "calls normal": 0.95}),
        (("train",), {"guesses": 1.0, "calls normal": 1.0}),
    ],
)
def test_the_share_of_planted_failures_found_by_number_of_patches(real_pcam, splits, num_found):
    patches = RealPatches(real_pcam, *splits)
    seeds = range(3 if splits == ("train",) else 10)
    for blindness, least in num_found.items():
        found = dict.fromkeys(FAILURES, 0)
        for failure in FAILURES:
            planted = patches.planted(failure)
            for seed in seeds:
                logit = BLINDNESS[blindness](sound_logits(patches.y_true, seed), planted, seed)
                found[failure] += is_found(patches.discover(logit, failure, seed), planted)
        print(f"{len(patches.y_true):,} patches, {blindness}: {found} of {len(seeds)} each")
        assert sum(found.values()) >= least * len(seeds) * len(FAILURES)


@pytest.mark.slow
def test_of_100_searches_through_relabelled_real_slices_about_as_many_alarm_as_they_may(patches):
    alarms = 0
    for seed in range(100):
        order = np.random.default_rng([seed, 7]).permutation(len(patches.y_true))
        facts = patches.facts.iloc[order].reset_index(drop=True)
        predictions = predictions_of(patches.y_true, sound_logits(patches.y_true, seed))
        alarms += discover_slices(predictions, 0.5, facts, seed=seed).num_confirmed > 0
    print(f"{alarms} of 100 searches confirm something")
    assert alarms <= 8  # 0.05 of them, and chance
