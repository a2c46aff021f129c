"""The parts of the search for failures, each against what is worked out another way."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted_failures import (
    confirmed,
    fabricate_facts,
    guessing,
    predictions_of,
    slides_of_one_stain,
    sound_logits,
)
from scipy.stats import fisher_exact

from ml_core.evaluation.discovery import discover_slices
from ml_core.evaluation.discovery.clusters import cluster_patches, share_explained, without_output
from ml_core.evaluation.discovery.confirm import (
    confirmed_figures,
    corrected,
    suggested_figures,
)
from ml_core.evaluation.discovery.halves import (
    deal_patches,
    deal_slides,
    is_distinct,
    numbered_slides,
)
from ml_core.evaluation.discovery.looks import describe_looks
from ml_core.evaluation.discovery.outcomes import CLASSES, Outcomes, log_likelihood_ratio
from ml_core.evaluation.discovery.reading import detectable_excess
from ml_core.evaluation.discovery.rules import MAX_SHARE, MIN_PATCHES, RuleSearch
from ml_core.evaluation.discovery.suggest import suggest_clusters
from ml_core.evaluation.discovery.terms import name_terms, number_terms
from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.query import compile_query


def outcomes_of(labels, is_wrong, suggests=None):
    suggests = np.ones(len(labels), bool) if suggests is None else suggests
    return Outcomes.of(np.asarray(labels), np.asarray(is_wrong, bool), suggests)


# Terms


def test_every_term_as_a_query_gives_the_patches_that_it_was_counted_on():
    _, facts = fabricate_facts(400)
    facts["white_share"] = np.round(np.random.default_rng(0).random(400), 1)  # ties on the cuts
    facts.loc[::9, "hue"] = np.nan
    terms = number_terms(facts)
    for term in range(0, len(terms), 7):
        mask = compile_query(terms.text(term), facts.columns).mask(facts)
        assert (mask == terms.holds(term)).all(), terms.text(term)


@pytest.mark.parametrize("name", ["TCGA-1", 'O"Neill', "it's", "back\\slash", "ü"])
def test_a_slide_of_any_name_is_a_query_that_finds_it(name):
    facts = pd.DataFrame({"slide": [name, "other", None, name]})
    terms = name_terms(facts)
    texts = [terms.text(term) for term in range(len(terms))]
    masks = [compile_query(text, ["slide"]).mask(facts).tolist() for text in texts]
    assert [True, False, False, True] in masks


def test_cuts_are_short_enough_to_be_read():
    _, facts = fabricate_facts(300)
    terms = number_terms(facts)
    assert all(len(edge) <= 8 for edge in map(str, terms.facts[0].edges))


def test_two_values_are_one_cut_and_a_constant_is_no_term():
    facts = pd.DataFrame({"brightness": [1.0, 2.0] * 50, "focus": [5.0] * 100})
    terms = number_terms(facts)
    texts = [terms.text(term) for term in range(len(terms))]
    assert texts == ["brightness < 2.0", "brightness >= 2.0"]


# The search


def log_likelihood(errors, n):
    """Return the log-likelihood of `errors` among `n` at their own rate."""
    return sum(k * math.log(k / n) for k in (errors, n - errors) if k)


def test_the_gain_is_the_likelihood_ratio_of_a_rate_of_its_own_worked_by_hand():
    # 20 patches with 8 errors, where 100 have 12: rates of 8/20 and 4/80 against 12/100
    ratio = log_likelihood_ratio(np.array([20]), np.array([8]), np.array([2.4]), 100, 12)
    by_hand = log_likelihood(8, 20) + log_likelihood(4, 80) - log_likelihood(12, 100)
    assert ratio[0] == pytest.approx(by_hand)
    fewer = log_likelihood_ratio(np.array([20]), np.array([2]), np.array([2.4]), 100, 12)
    assert fewer[0] == -math.inf


def test_the_best_rule_of_one_term_is_that_of_trying_every_term():
    y_true, facts = fabricate_facts(300)
    # on more patches than a slice may have
    is_wrong = np.random.default_rng(1).random(300) < np.where(facts["hue"] > 305, 0.5, 0.1)
    suggests = np.arange(300) % 3 > 0
    outcomes = outcomes_of(y_true, is_wrong, suggests)
    terms = number_terms(facts)
    rates = [is_wrong[suggests & (y_true == label)].mean() for label in (0, 1)]

    def gain(term, target):
        concerned = suggests & np.isin(y_true, CLASSES[target])
        inside = concerned & terms.holds(term)
        if not MIN_PATCHES <= inside.sum() <= MAX_SHARE * concerned.sum():
            return -math.inf
        ratio = log_likelihood_ratio(
            np.array([inside.sum()]),
            np.array([(inside & is_wrong).sum()]),
            np.array([sum(rates[label] * (inside & (y_true == label)).sum() for label in (0, 1))]),
            int(concerned.sum()),
            int((concerned & is_wrong).sum()),
        )
        return float(ratio[0] - terms.costs[term])

    every = {(term, target): gain(term, target)
             for term, target in itertools.product(range(len(terms)), CLASSES)}  # fmt: skip
    search = RuleSearch(terms, max_terms=1)
    rule = search.best(outcomes)
    assert rule.gain == pytest.approx(max(every.values()))
    assert every[rule.terms[0], rule.target] == pytest.approx(rule.gain)
    assert search.num_tried >= sum(each > -math.inf for each in every.values())


def test_a_rule_is_as_good_as_it_gets_by_changing_one_term():
    y_true, facts = fabricate_facts(2000)
    planted = ((facts["brightness"] < 130) & (facts["focus"] < 12000)).to_numpy()
    is_wrong = np.random.default_rng(1).random(2000) < np.where(planted, 0.5, 0.1)
    search = RuleSearch(number_terms(facts), max_terms=2)
    outcomes = outcomes_of(y_true, is_wrong)
    rule = search.best(outcomes)
    assert len(rule.terms) == 2
    for kept in rule.terms:
        others = search._longer((kept,), outcomes)
        assert all(each.gain <= rule.gain for each in others)
        facts_of = [[search.terms.fact_of[term] for term in each.terms] for each in others]
        assert all(first != second for first, second in facts_of), "a fact stands in a rule once"


def test_what_is_explained_expects_its_own_error_rate_in_each_class():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    is_wrong = np.array([1, 0, 0, 0, 1, 1, 0, 1], bool)
    mask = np.array([1, 1, 0, 0, 1, 1, 0, 0], bool)
    outcomes = outcomes_of(labels, is_wrong)
    assert outcomes.expected.tolist() == [0.25] * 4 + [0.75] * 4
    assert outcomes.explained_by(mask).expected.tolist() == [0.5, 0.5, 0, 0, 1, 1, 0.5, 0.5]


# The two halves


def test_the_halves_are_disjoint_equal_in_size_and_leave_out_copies_only():
    index = np.arange(1001)
    distinct = is_distinct(index, np.array([str(i // 2) for i in index], object))
    assert distinct.sum() == 501
    halves = deal_patches(index, distinct, seed=0)
    assert not (halves.suggests & halves.confirms).any()
    assert ((halves.suggests | halves.confirms) == distinct).all()
    assert abs(int(halves.suggests.sum()) - int(halves.confirms.sum())) <= 1
    assert (deal_patches(index, distinct, seed=1).suggests != halves.suggests).any()


def test_patches_of_no_known_copies_are_all_distinct():
    assert is_distinct(np.arange(3), np.array([None, None, "a"], object)).all()
    assert is_distinct(np.arange(3), None).all()


def test_no_slide_stands_in_both_halves_and_they_hold_about_half_of_the_patches_each():
    generator = np.random.default_rng(0)
    slides = np.array([f"s{i}" for i in generator.integers(0, 40, 3000)], object)
    slides[:50] = None
    slides[50:60] = ""
    numbers = numbered_slides(slides, np.arange(3000))
    halves = deal_slides(numbers, np.ones(3000, bool), seed=0)
    assert not set(slides[60:][halves.suggests[60:]]) & set(slides[60:][halves.confirms[60:]])
    assert len(np.unique(numbers[:60])) == 60, "unknown slides are one each"
    assert 1350 < halves.suggests.sum() < 1650


@pytest.mark.parametrize(("num_slides", "are_dealt"), [(9, False), (10, True)])
def test_slides_are_dealt_out_as_a_whole_from_ten_on(num_slides, are_dealt):
    slides = np.array([f"s{i % num_slides}" for i in range(90)], object)
    assert (numbered_slides(slides, np.arange(90)) is not None) == are_dealt
    assert numbered_slides(None, np.arange(90)) is None


# Confirmation


def test_figures_are_those_of_the_confirming_patches_worked_by_hand():
    # Tumours: 12 of 20 wrong inside, 10 of 100 outside; normal ones: 1 of 10 and 9 of 90.
    cells = [(1, 1, 1, 12), (1, 1, 0, 8), (1, 0, 1, 10), (1, 0, 0, 90)]
    cells += [(0, 1, 1, 1), (0, 1, 0, 9), (0, 0, 1, 9), (0, 0, 0, 81)]
    labels, mask, is_wrong = (
        np.repeat([c[i] for c in cells], [c[3] for c in cells]) for i in range(3)
    )
    mask = mask.astype(bool)
    among = np.ones(220, bool)
    outcomes = outcomes_of(labels, is_wrong)
    missed = confirmed_figures(mask, among, outcomes, "missed tumours", None, 0.95)
    assert (missed.n, missed.errors, missed.error, missed.rest_error) == (20, 12, 0.6, 0.1)
    assert missed.difference == pytest.approx(0.5)
    assert missed.p == pytest.approx(fisher_exact([[12, 8], [10, 90]]).pvalue)
    assert missed.low < 0.5 < missed.high
    both = confirmed_figures(mask, among, outcomes, "errors", None, 0.95)
    weights = 20 * 100 / 120, 10 * 90 / 100  # Mantel and Haenszel's
    assert (both.n, both.errors) == (30, 13)
    assert both.difference == pytest.approx(weights[0] * 0.5 / sum(weights))
    suggested = suggested_figures(mask, among, outcomes, "errors")
    assert (suggested.n, suggested.error, suggested.rest_error) == (30, 13 / 30, 19 / 190)
    assert math.isnan(both.q)


def test_patches_that_are_not_among_the_confirming_ones_change_nothing():
    generator = np.random.default_rng(0)
    labels, mask, is_wrong = (generator.random(400) < share for share in (0.5, 0.3, 0.2))
    among = np.arange(400) < 300
    outcomes = outcomes_of(labels.astype(int), is_wrong)
    turned = outcomes_of(labels.astype(int), np.where(among, is_wrong, ~is_wrong))
    first, again = (confirmed_figures(mask, among, each, "errors", None, 0.95)
                    for each in (outcomes, turned))  # fmt: skip
    assert corrected([first]) == corrected([again])


def test_too_few_patches_are_not_tested_and_do_not_count_in_the_correction():
    labels = np.tile([0, 1], 200)
    is_wrong = np.random.default_rng(0).random(400) < 0.2
    outcomes, among = outcomes_of(labels, is_wrong), np.ones(400, bool)
    large, small = (
        confirmed_figures(np.arange(400) < size, among, outcomes, "errors", None, 0.95)
        for size in (40, MIN_PATCHES - 1)
    )
    assert math.isnan(small.p)
    assert small.n == MIN_PATCHES - 1
    alone = corrected([large])[0]
    assert corrected([small, large])[1] == alone
    assert alone.q == alone.p
    assert corrected([large, large, large])[0].q == pytest.approx(large.p)
    surer = replace(large, p=large.p / 5)
    assert corrected([large, surer])[1].q == pytest.approx(2 * surer.p)
    assert corrected([]) == []


def test_a_slice_that_copies_an_explained_one_has_nothing_left_to_confirm():
    labels = np.tile([0, 1], 300)
    mask = np.arange(600) < 120
    is_wrong = np.random.default_rng(0).random(600) < np.where(mask, 0.6, 0.1)
    outcomes, among = outcomes_of(labels, is_wrong), np.ones(600, bool)
    assert confirmed_figures(mask, among, outcomes, "errors", None, 0.95).p < 1e-9
    beside = confirmed_figures(mask, among, outcomes.explained_by(mask), "errors", None, 0.95)
    assert math.isnan(beside.p)
    assert math.isnan(beside.difference)


def test_where_slides_differ_their_spread_is_in_interval_and_test():
    generator = np.random.default_rng(0)
    slides = np.repeat(np.arange(20), 50)
    mask = slides % 4 == 0
    rates = np.where(mask, 0.25, 0.1) * np.repeat(generator.uniform(0, 2, 20), 50)
    labels = np.tile([0, 1], 500)
    outcomes, among = outcomes_of(labels, generator.random(1000) < rates), np.ones(1000, bool)
    alone = confirmed_figures(mask, among, outcomes, "errors", None, 0.95)
    doubted = confirmed_figures(mask, among, outcomes, "errors", slides, 0.95)
    assert doubted.difference == alone.difference
    assert doubted.low < alone.low
    assert doubted.p > alone.p
    of_one = confirmed_figures(slides == 0, among, outcomes, "errors", slides, 0.95)
    assert math.isnan(of_one.p), "one slide cannot speak for others"


def test_the_excess_said_to_be_detectable_is_found_in_about_four_of_five_cases():
    generator = np.random.default_rng(0)
    labels, mask = np.tile([0, 1], 500), np.arange(1000) < 100
    excess = detectable_excess(np.arange(1000) < 130, num_suggested=1, false_discovery_rate=0.05)
    found = 0
    for _ in range(200):
        is_wrong = generator.random(1000) < np.where(mask, 0.13 + excess, 0.13)
        among, outcomes = np.ones(1000, bool), outcomes_of(labels, is_wrong)
        found += confirmed_figures(mask, among, outcomes, "errors", None, 0.95).p <= 0.05
    assert 0.68 < found / 200 < 0.9
    harder = detectable_excess(np.arange(1000) < 130, num_suggested=10, false_discovery_rate=0.05)
    assert harder > excess


# Slides


def test_one_bad_slide_is_found_by_its_name_and_not_taken_for_a_bad_hue():
    y_true, facts = fabricate_facts(2000)
    slides = slides_of_one_stain(facts["hue"], noise=0)
    bad = slides == "s7"
    logit = guessing(sound_logits(y_true), bad)
    discovery = discover_slices(
        predictions_of(y_true, logit), 0.5, facts.assign(slide=slides), slides=slides
    )
    assert discovery.split_by == "slide"
    (found,) = confirmed(discovery)
    assert found.slice.where == "slide == 's7'"
    assert (found.slice.mask == bad).all()
    assert 0 < found.confirmed.n < bad.sum(), "confirmed on other patches of the slide"


def test_without_slides_it_is_said_that_both_halves_may_hold_patches_of_one():
    y_true, facts = fabricate_facts(200)
    predictions = predictions_of(y_true, sound_logits(y_true))
    slides = np.array([f"s{i % 4}" for i in range(200)], object)
    alone, few = (discover_slices(predictions, 0.5, facts, slides=each) for each in (None, slides))
    assert alone.split_by == few.split_by == "patch"
    assert any("No slide is known" in note for note in alone.notes)
    assert any("Fewer than 10 slides" in note for note in few.notes)


@pytest.mark.slow
def test_slides_that_differ_in_difficulty_make_no_rule_about_their_stain():
    alarms = {"slides": 0, "no slides": 0}
    for seed in range(30):
        y_true, facts = fabricate_facts(1500, seed)
        slides = slides_of_one_stain(facts["hue"], noise=0)
        generator = np.random.default_rng([seed, 9])
        rates = dict(zip(np.unique(slides), generator.beta(1, 6, 24), strict=True))
        is_wrong = generator.random(1500) < [rates[slide] for slide in slides]
        predictions = predictions_of(y_true, np.where(is_wrong == y_true, -1.0, 1.0))
        for name, given in (("slides", slides), ("no slides", None)):
            discovery = discover_slices(predictions, 0.5, facts, slides=given, seed=seed)
            alarms[name] += discovery.num_confirmed > 0
    assert alarms["slides"] <= 2
    assert alarms["no slides"] >= 8, "patches taken one by one would be fooled"


# Clusters and looks


def features_of(y_true, facts, logit, seed=0):
    """Return features that know brightness, and the output along several directions."""
    generator = np.random.default_rng([seed, 4])
    sure = np.abs(logit) * generator.choice([-1, 1], len(logit))
    columns = [logit, 2 * logit, np.abs(logit), sure, facts["brightness"] / 25]
    noise = generator.normal(size=(len(logit), 8))
    noise[:, :5] += np.stack(columns, axis=1)
    return noise.astype(np.float32)


def test_a_failure_that_no_fact_tells_of_is_found_as_a_cluster_and_told_by_its_looks():
    y_true, facts = fabricate_facts(3000)
    dark = (facts["brightness"] < 92).to_numpy()
    logit = guessing(sound_logits(y_true), dark)
    features = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    features[dark] += 6
    blindfold = facts[["eosin"]].assign(brightness=np.nan)
    discovery = discover_slices(predictions_of(y_true, logit), 0.5, blindfold, features=features)
    assert {each.found_by for each in confirmed(discovery)} == {"cluster"}
    found = np.logical_or.reduce([each.slice.mask for each in confirmed(discovery)])
    assert (found & ~dark).sum() < 0.1 * found.sum()
    told = discover_slices(predictions_of(y_true, logit), 0.5, facts, features=features)
    clusters = [each for each in told.slices if each.found_by == "cluster" and each.is_confirmed]
    assert all(each.slice.where == "" and "darker" in each.slice.said for each in clusters)


def test_clusters_do_not_follow_the_output_but_what_else_is_in_the_features():
    y_true, facts = fabricate_facts(3000)
    logit = sound_logits(y_true)
    features = features_of(y_true, facts, logit)
    suggests = np.arange(3000) % 2 == 0
    direction = np.eye(8, dtype=np.float32)[0]
    clusters = cluster_patches(features, logit, direction, suggests, seed=0)
    plain = cluster_patches(features, np.zeros(3000), None, suggests, seed=0)
    for output, before in ((logit, 0.6), (np.abs(logit), 0.3)):
        assert share_explained(output, plain) > before
        assert share_explained(output, clusters) < 0.1
    assert share_explained(facts["brightness"].to_numpy(), clusters) > 0.2


def test_the_direction_of_the_logit_is_projected_out():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(500, 3)).astype(np.float32)
    direction = np.array([0, 2, 0], np.float32)
    apart = without_output(features, np.zeros(500), direction, np.ones(500, bool))
    assert np.abs(apart[:, 1]).max() < 1e-6
    assert apart[:, 0].std() == pytest.approx(1, abs=0.1)


def test_a_cluster_gains_what_its_errors_are_likelier_with_it_less_the_choice_of_it():
    clusters = np.repeat([0, 1, 2, 3, 4], [20, 20, 20, 20, 10])
    is_wrong = np.arange(90) % 10 < np.repeat([8, 2, 2, 2, 10], [20, 20, 20, 20, 10])
    labels = np.tile([0, 1], 45)
    halves = deal_patches(np.arange(90), np.ones(90, bool), seed=0)
    found = suggest_clusters(clusters, halves, outcomes_of(labels, is_wrong), at_most=5)
    assert [each.slice.name for each in found] == ["cluster 1 of 5"], "cluster 5 is too small"
    by_hand = log_likelihood(16, 20) + log_likelihood(22, 70) - log_likelihood(38, 90)
    assert found[0].gain == pytest.approx(by_hand - math.log(5), abs=0.01)
    assert found[0].target == "errors"
    assert suggest_clusters(clusters, halves, outcomes_of(labels, is_wrong), at_most=0) == []


def test_features_that_are_only_the_output_suggest_no_cluster_that_is_confirmed():
    for seed in range(5):
        y_true, facts = fabricate_facts(2000, seed)
        logit = sound_logits(y_true, seed)
        features = features_of(y_true, facts, logit, seed)
        discovery = discover_slices(
            predictions_of(y_true, logit), 0.5, facts, features=features, seed=seed
        )
        assert not confirmed(discovery)
        assert any("of how its probability ranks" in note for note in discovery.notes)


def test_the_output_is_taken_out_with_what_the_suggesting_half_knows():
    y_true, facts = fabricate_facts(600)
    logit = sound_logits(y_true)
    features = features_of(y_true, facts, logit)
    suggests = np.arange(600) % 2 == 0
    first = without_output(features, logit, None, suggests)
    features[1], logit = 100, np.where(np.arange(600) == 1, 3.0, logit)
    again = without_output(features, logit, None, suggests)
    assert (first[suggests] == again[suggests]).all()


def test_looks_name_the_facts_that_differ_most_in_the_words_of_their_side():
    _, facts = fabricate_facts(1000)
    dark_and_blurred = ((facts["brightness"] < 110) & (facts["focus"] < 14000)).to_numpy()
    looks = describe_looks(dark_and_blurred, facts)
    assert [look.words for look in looks] == ["darker", "more blurred"]
    inside, rest = (
        facts["brightness"][mask].mean() for mask in (dark_and_blurred, ~dark_and_blurred)
    )
    assert looks[0].z == pytest.approx((inside - rest) / facts["brightness"].std(ddof=0))
    strong = (facts["eosin"] > 0.45).to_numpy()
    assert [look.words for look in describe_looks(strong, facts)] == [FACTS["eosin"].more]
    narrow = np.abs(facts["hue"] - facts["hue"].mean()) < 3
    assert describe_looks(narrow.to_numpy(), facts) == (), "it differs in no mean"


def test_a_slide_that_most_of_a_slice_is_of_is_a_look():
    _, facts = fabricate_facts(400)
    slides = np.array(["a", "b", "c", "d"] * 100, object)
    mask = (slides == "c") & (np.arange(400) < 300)
    assert "slide c" in [look.words for look in describe_looks(mask, facts.assign(slide=slides))]
    assert describe_looks(np.zeros(400, bool), facts) == ()
