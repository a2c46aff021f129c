import json
import math

import numpy as np
import pandas as pd
import pytest
from planted_failures import (
    calling_normal,
    confirmed,
    fabricate_facts,
    guessing,
    overlap,
    predictions_of,
    sound_logits,
)

from ml_core.errors import RunError
from ml_core.evaluation.discovery import discover_slices
from ml_core.evaluation.slices.query import compile_query


def discover(y_true, logit, facts, **arguments):
    return discover_slices(predictions_of(y_true, logit), 0.5, facts, **arguments)


def discover_blind(where, num_patches=1500, how=guessing, **arguments):
    """Return (discovery, planted mask) of a model that is blind on the patches of a query."""
    y_true, facts = fabricate_facts(num_patches)
    mask = facts.eval(where).to_numpy()
    return discover(y_true, how(sound_logits(y_true), mask), facts, **arguments), mask


def without(discovery, *names):
    """Return the discovery as a dict, without what may differ."""
    content = discovery.to_dict()
    return {name: content[name] for name in content if name not in names}


def test_a_model_blind_on_dark_patches_is_found_and_told_in_words():
    discovery, dark = discover_blind("brightness < 80")
    worst = discovery.slices[0]
    assert worst.is_confirmed
    assert worst.confirmed.q < 0.05
    assert worst.slice.where.startswith("brightness < ")
    assert overlap(worst.slice.mask, dark) > 0.8
    assert worst.looks[0].words == "darker"
    assert worst.slice.said.startswith("darker")


def test_a_band_in_the_middle_of_a_fact_is_found():
    discovery, band = discover_blind("310 < hue < 318")
    assert overlap(confirmed(discovery)[0].slice.mask, band) > 0.6


def test_a_combination_is_found_as_one_rule_of_two_terms():
    discovery, both = discover_blind("brightness < 110 and focus < 12000")
    worst = confirmed(discovery)[0]
    assert " and " in worst.slice.where
    assert overlap(worst.slice.mask, both) > 0.6
    single, _ = discover_blind("brightness < 110 and focus < 12000", max_terms=1)
    assert all(" and " not in each.slice.where for each in single.slices)


def test_a_term_that_adds_nothing_is_not_added():
    discovery, _ = discover_blind("brightness < 80", num_patches=4000)
    assert " and " not in discovery.slices[0].slice.where


def test_tumours_that_are_all_missed_are_found_where_almost_every_patch_is_normal():
    y_true, facts = fabricate_facts(3000)
    dark = (facts["brightness"] < 100).to_numpy()
    y_true[dark & (np.random.default_rng(1).random(3000) < 0.85)] = 0
    logit = calling_normal(sound_logits(y_true), dark)
    is_wrong = (logit >= 0) != y_true
    assert is_wrong[dark].mean() < is_wrong[~dark].mean()  # over both classes it looks better
    worst = confirmed(discover(y_true, logit, facts))[0]
    assert worst.target == "missed tumours"
    assert overlap(worst.slice.mask, dark) > 0.7
    assert worst.confirmed.error == 1


def test_a_slice_is_not_worse_for_having_more_of_the_harder_class():
    y_true, facts = fabricate_facts(4000)
    facts["brightness"] -= 60 * y_true
    is_wrong = np.random.default_rng(2).random(4000) < np.where(y_true == 1, 0.4, 0.05)
    discovery = discover(y_true, np.where(is_wrong == y_true, -1.0, 1.0), facts)
    assert not confirmed(discovery)


def test_one_failure_is_not_reported_again_in_the_words_of_another_fact():
    y_true, facts = fabricate_facts(4000)
    facts["eosin"] = 1 - facts["brightness"] / 250
    facts["eosin"] += np.random.default_rng(3).normal(0, 0.05, 4000)
    dark = (facts["brightness"] < 100).to_numpy()
    discovery = discover(y_true, guessing(sound_logits(y_true), dark), facts)
    assert len(confirmed(discovery)) == 1
    assert "brightness" in discovery.slices[0].slice.where


def test_a_second_failure_is_found_beside_the_first_that_overlaps_with_it():
    y_true, facts = fabricate_facts(6000)
    dark, red = ((facts[name] < cut).to_numpy() for name, cut in (("brightness", 84), ("hue", 294)))
    logit = guessing(calling_normal(sound_logits(y_true), dark), red)
    found = confirmed(discover(y_true, logit, facts))
    assert all(max(overlap(each.slice.mask, mask) for each in found) > 0.6 for mask in (dark, red))
    assert any(each.beside for each in found)
    first = found[0].slice.name
    assert all(first in each.beside for each in found[1:] if (each.slice.mask & dark).any())


def test_a_sound_model_on_shuffled_facts_raises_at_most_one_alarm_in_20_searches():
    alarms = 0
    for seed in range(20):
        y_true, facts = fabricate_facts(1000, seed)
        alarms += discover(y_true, sound_logits(y_true, seed), facts, seed=seed).num_confirmed > 0
    assert alarms <= 1


def test_the_confirming_half_has_no_say_in_what_is_suggested():
    y_true, facts = fabricate_facts()
    facts["slide"] = [f"s{i % 12}" for i in range(1500)]
    features = np.random.default_rng(5).normal(size=(1500, 6)).astype(np.float32)
    logit = guessing(sound_logits(y_true), (facts["brightness"] < 90).to_numpy())
    discovery = discover(y_true, logit, facts, features=features)
    assert {each.found_by for each in discovery.slices} == {"rule", "cluster"}
    confirming = confirming_half(facts, y_true)
    flipped = np.where(confirming, -logit, logit)
    again = discover(y_true, flipped, facts, features=features)

    def suggested(of):
        return {each.slice.name: (each.target, each.suggested) for each in of.slices}

    assert suggested(again) == suggested(discovery)
    assert again.slices[0].confirmed != discovery.slices[0].confirmed


def test_a_slice_that_is_better_on_the_confirming_half_is_not_confirmed_however_sure_that_is():
    y_true, facts = fabricate_facts()
    dark = (facts["brightness"] < 100).to_numpy()
    confirming = confirming_half(facts, y_true)
    rates = np.where(confirming, np.where(dark, 0.0, 0.4), np.where(dark, 0.7, 0.1))
    is_wrong = np.random.default_rng(0).random(1500) < rates
    discovery = discover(y_true, np.where(is_wrong == y_true, -1.0, 1.0), facts)
    (turned,) = [each for each in discovery.slices if overlap(each.slice.mask, dark) > 0.7]
    assert turned.confirmed.q < 1e-6
    assert turned.confirmed.difference < 0
    assert not turned.is_confirmed


def confirming_half(facts, y_true):
    """Return which patches confirm, bool (N,): those whose error changes no suggestion."""
    from ml_core.evaluation.discovery.halves import deal_patches

    return deal_patches(np.arange(len(facts)), np.ones(len(facts), bool), seed=0).confirms


def test_the_label_and_what_knows_it_suggest_nothing():
    y_true, facts = fabricate_facts()
    logit = sound_logits(y_true)
    is_wrong = (logit >= 0) != y_true
    facts = facts.assign(label=y_true, label_belief=1.0 - is_wrong, num_copies=1 + is_wrong)
    facts["flags"] = np.where(is_wrong, "label-errors", "")
    facts["tumour_at"] = np.where(is_wrong, "edge only", "centre")
    facts["my own column"] = is_wrong.astype(float)
    discovery = discover(y_true, logit, facts)
    assert not confirmed(discovery)
    assert all(look.fact in ("brightness", "hue", "focus", "eosin")
               for each in discovery.slices for look in each.looks)  # fmt: skip


def test_the_query_of_a_rule_gives_its_mask_and_patches_with_unknown_facts_are_outside():
    y_true, facts = fabricate_facts()
    facts.loc[::7, "hue"] = np.nan
    mask = (facts["hue"] < 295).to_numpy()
    discovery = discover(y_true, guessing(sound_logits(y_true), mask), facts)
    assert "hue" in discovery.slices[0].slice.where
    for each in discovery.slices:
        query = compile_query(each.slice.where, facts.columns)
        assert (query.mask(facts) == each.slice.mask).all()
    assert not discovery.slices[0].slice.mask[::7].any()


def test_the_result_depends_on_the_patches_and_the_seed_and_not_on_row_order():
    y_true, facts = fabricate_facts()
    groups = np.array([f"{i // 2}" for i in range(1500)], object)
    logit = guessing(sound_logits(y_true), (facts["brightness"] < 80).to_numpy())
    order = np.random.default_rng(0).permutation(1500)
    first = discover_slices(predictions_of(y_true, logit), 0.5, facts, groups=groups)
    again = discover_slices(
        predictions_of(y_true[order], logit[order], order),
        0.5,
        facts.iloc[order].reset_index(drop=True),
        groups=groups[order],
    )
    assert without(again, "slices") == without(first, "slices")
    for a, b in zip(first.slices, again.slices, strict=True):
        assert (a.confirmed, a.suggested, a.examples) == (b.confirmed, b.suggested, b.examples)
        assert (a.slice.mask[order] == b.slice.mask).all()
    other = discover_slices(predictions_of(y_true, logit), 0.5, facts, groups=groups, seed=1)
    assert other.slices[0].confirmed != first.slices[0].confirmed


def test_copies_of_one_wrong_patch_confirm_nothing():
    y_true, facts = fabricate_facts()
    logit = sound_logits(y_true)
    facts.loc[:59] = facts.loc[0].to_numpy()
    y_true[:60], logit[:60] = 1, -3.0
    groups = np.array([f"{max(i, 59)}" for i in range(1500)], object)
    alone = discover(y_true, logit, facts, groups=groups)
    assert not confirmed(alone)
    assert alone.num_suggesting + alone.num_confirming == 1441
    assert any(note.startswith("59 copies") for note in alone.notes)
    assert confirmed(discover(y_true, logit, facts))  # taken as 60 patches they would


def test_examples_are_patches_of_the_confirming_half_with_the_largest_loss_first():
    discovery, dark = discover_blind("brightness < 80")
    y_true, facts = fabricate_facts()
    losses = predictions_of(y_true, guessing(sound_logits(y_true), dark)).nll
    worst = discovery.slices[0]
    examples = list(worst.examples)
    assert len(examples) == 12
    assert (np.diff(losses[examples]) <= 0).all()
    rows = np.flatnonzero(worst.slice.mask & confirming_half(facts, y_true))
    assert set(examples) <= set(rows)
    of_target = rows[y_true[rows] == 1] if worst.target == "missed tumours" else rows
    assert losses[examples[0]] == losses[of_target].max()


def test_confirmed_slices_come_first_in_order_of_what_the_excess_is_at_least():
    y_true, facts = fabricate_facts(6000)
    logit = calling_normal(sound_logits(y_true), (facts["brightness"] < 84).to_numpy())
    logit = guessing(logit, (facts["focus"] < 6000).to_numpy())
    slices = discover(y_true, logit, facts).slices
    flags = [each.is_confirmed for each in slices]
    assert flags == sorted(flags, reverse=True)
    lows = [each.confirmed.low for each in slices if each.is_confirmed]
    assert len(lows) >= 2
    assert lows == sorted(lows, reverse=True)
    assert min(lows) > 0


def test_the_content_is_json_without_nan_and_without_masks():
    discovery, _ = discover_blind("brightness < 80", num_patches=600)
    content = json.loads(json.dumps(discovery.to_dict(), allow_nan=False))
    worst = content["slices"][0]
    assert worst["kind"] == worst["group"] == "discovered"
    assert set(worst["confirmed"]["difference"]) == {"value", "low", "high"}
    assert worst["suggested"]["n"] > 0
    assert set(worst["looks"][0]) == {"fact", "z", "words"}
    assert content["num_suggested"] == len(content["slices"])
    assert content["num_tried"] > 1000


def test_a_finding_names_the_slice_with_its_figures():
    discovery, _ = discover_blind("brightness < 80")
    (finding,) = discovery.findings
    worst = discovery.slices[0]
    assert (finding.id, finding.severity) == ("slices-discovered", "warning")
    assert worst.slice.where in finding.message
    assert f"{worst.confirmed.errors} {worst.target} among {worst.confirmed.n}" in finding.message
    assert finding.count == discovery.num_confirmed


def test_where_nothing_is_confirmed_it_is_said_what_would_have_been_seen():
    y_true, facts = fabricate_facts(1000)
    discovery = discover(y_true, sound_logits(y_true), facts)
    (finding,) = discovery.findings
    assert (finding.id, finding.severity) == ("no-slice-discovered", "info")
    assert f"{100 * discovery.detectable:.0f} points" in finding.message


@pytest.mark.parametrize("wrong", [False, True])
def test_without_a_single_error_or_a_right_call_there_is_nothing_to_find_and_that_is_said(wrong):
    y_true, facts = fabricate_facts(200)
    logit = np.where((y_true == 1) != wrong, 1.0, -1.0)
    discovery = discover(y_true, logit, facts)
    assert not confirmed(discovery)
    assert math.isnan(discovery.detectable)
    assert discovery.to_dict()["detectable"] is None
    assert "no errors" in discovery.findings[0].message


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_searched_for_its_own_errors(label):
    _, facts = fabricate_facts()
    y_true = np.full(1500, label)
    dark = (facts["brightness"] < 84).to_numpy()
    logit = np.where(np.random.default_rng(0).random(1500) < np.where(dark, 0.5, 0.1), -1.0, 1.0)
    worst = discover(y_true, logit if label else -logit, facts).slices[0]
    assert worst.is_confirmed
    assert overlap(worst.slice.mask, dark) > 0.7


@pytest.mark.parametrize("num_patches", [1, 2, 20])
def test_a_few_patches_suggest_nothing_and_break_nothing(num_patches):
    y_true, facts = fabricate_facts(num_patches)
    features = np.ones((num_patches, 3), np.float32)
    discovery = discover(y_true, -sound_logits(y_true), facts, features=features)
    assert not confirmed(discovery)


def test_facts_that_are_constant_unknown_or_absent_are_passed_over():
    y_true, facts = fabricate_facts(300, brightness=100.0, hue=np.nan, slide=None)
    discovery = discover(y_true, sound_logits(y_true), facts)
    assert not any("brightness" in each.slice.where or "hue" in each.slice.where
                   for each in discovery.slices)  # fmt: skip
    nothing = discover(y_true, sound_logits(y_true), pd.DataFrame(index=range(300)))
    assert nothing.num_suggested == nothing.num_tried == 0


def test_misuse_is_refused_in_words():
    y_true, facts = fabricate_facts(100)
    predictions = predictions_of(y_true, sound_logits(y_true))
    with pytest.raises(ValueError, match="facts has 99 rows and there are 100 predictions"):
        discover_slices(predictions, 0.5, facts.iloc[:99])
    with pytest.raises(ValueError, match="slides has 3 rows"):
        discover_slices(predictions, 0.5, facts, slides=np.array(["a", "b", "c"], object))
    with pytest.raises(ValueError, match="not finite"):
        discover_slices(predictions, 0.5, facts, features=np.full((100, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="threshold is 2"):
        discover_slices(predictions, 2, facts)
    unlabelled = type(predictions)(
        "valid", predictions.index, None, predictions.y_prob, y_true * 1.0
    )
    with pytest.raises(RunError, match="have no labels"):
        discover_slices(unlabelled, 0.5, facts)
