import math

import numpy as np
import pytest

from ml_core.evaluation.prior_shift import adjust_prior, at_prevalence
from ml_core.evaluation.reliability import calibration_scores


def draw(num_patches: int, prevalence: float, seed: int):
    """Return labels and the probabilities that are right at a prevalence of 0.5."""
    generator = np.random.default_rng(seed)
    y_true = (generator.random(num_patches) < prevalence).astype(int)
    score = generator.normal(size=num_patches) + 2 * y_true
    return y_true, 1 / (1 + np.exp(2 - 2 * score))  # log-odds of two normals, 2 apart


def test_probabilities_adjusted_from_balance_are_calibrated_where_tumours_are_rare():
    y_true, y_prob = draw(100_000, 0.02, seed=1)
    raw = calibration_scores(y_true, y_prob)
    adjusted = calibration_scores(y_true, adjust_prior(y_prob, 0.5, 0.02))
    assert raw["ece"] > 0.1
    assert adjusted["ece"] < 0.003
    assert adjusted["mean_prob"] == pytest.approx(0.02, abs=0.002)
    assert adjusted["nll"] < raw["nll"] / 3


def test_odds_are_multiplied_by_the_ratio_of_prior_odds():
    adjusted = adjust_prior([0.5, 0.8], 0.5, 0.1)
    assert adjusted == pytest.approx([0.1, 4 / (4 + 9)])


def test_there_and_back_is_where_it_was_and_no_shift_changes_nothing():
    y_prob = np.linspace(0, 1, 101)
    there = adjust_prior(y_prob, 0.5, 0.03)
    assert adjust_prior(there, 0.03, 0.5) == pytest.approx(y_prob, abs=1e-12)
    assert adjust_prior(y_prob, 0.4, 0.4) == pytest.approx(y_prob, abs=1e-15)
    assert (np.diff(there) > 0).all()
    assert (there[0], there[-1]) == (0, 1)


def test_predictive_values_equal_bayes_and_alarms_add_up():
    # Of 1,000 with 20 tumours: 18 found, 2 missed; of 980 normal 49 alarms, 931 silent.
    there = at_prevalence(0.9, 0.95, 0.02)
    assert there["ppv"]["value"] == pytest.approx(18 / 67)
    assert there["npv"]["value"] == pytest.approx(931 / 933)
    assert there["alarms_per_1000"]["value"] == pytest.approx(67)
    assert there["false_alarms_per_1000"]["value"] == pytest.approx(49)
    assert there["missed_per_1000"]["value"] == pytest.approx(2)
    for key in ("ppv", "npv", "alarms_per_1000"):
        assert there[key]["low"] == pytest.approx(there[key]["value"])


def test_intervals_follow_from_those_of_recall_and_specificity():
    sure = {"value": 0.95, "low": 0.95, "high": 0.95}
    recall = {"value": 0.9, "low": 0.8, "high": 0.94}
    one_sided = at_prevalence(recall, sure, 0.02)
    for end in ("low", "high"):
        alone = at_prevalence(recall[end], 0.95, 0.02)
        assert one_sided["ppv"][end] == pytest.approx(alone["ppv"]["value"])
        assert one_sided["npv"][end] == pytest.approx(alone["npv"]["value"])
    both = at_prevalence(recall, {"value": 0.95, "low": 0.93, "high": 0.96}, 0.02)
    corner = at_prevalence(0.8, 0.93, 0.02)["ppv"]["value"]
    assert corner < both["ppv"]["low"] < one_sided["ppv"]["low"], "not both at their worst at once"


def test_intervals_of_predictive_values_cover():
    generator = np.random.default_rng(0)
    recall, specificity, prevalence, num = 0.9, 0.8, 0.05, 400
    truth = at_prevalence(recall, specificity, prevalence)
    held = dict.fromkeys(("ppv", "npv", "alarms_per_1000"), 0)
    for _ in range(1000):
        ends = []
        for share in (recall, specificity):
            found = generator.binomial(num, share) / num
            half = 1.96 * math.sqrt(found * (1 - found) / num)
            ends.append({"value": found, "low": found - half, "high": found + half})
        there = at_prevalence(*ends, prevalence)
        for key in held:
            held[key] += there[key]["low"] <= truth[key]["value"] <= there[key]["high"]
    assert all(930 <= count <= 970 for count in held.values()), held


def test_what_is_undefined_is_none_and_what_is_perfect_has_ends():
    silent = at_prevalence(0.0, 1.0, 0.02)
    assert silent["ppv"] == {"value": None, "low": None, "high": None}
    assert silent["npv"]["value"] == pytest.approx(0.98)
    unknown = at_prevalence({"value": None, "low": None, "high": None}, 0.9, 0.02)
    assert unknown["ppv"]["value"] is unknown["missed_per_1000"]["value"] is None
    assert unknown["false_alarms_per_1000"]["value"] == pytest.approx(98)
    perfect = at_prevalence({"value": 1.0, "low": 0.98, "high": 1.0}, 0.9, 0.02)
    assert perfect["npv"]["value"] == perfect["npv"]["high"] == 1.0
    assert perfect["npv"]["low"] == pytest.approx(0.9 * 0.98 / (0.9 * 0.98 + 0.02 * 0.02))


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, 1.5, math.nan])
def test_a_prevalence_that_leaves_one_class_is_refused_in_words(prevalence):
    for call in (
        lambda: adjust_prior([0.5], 0.5, prevalence),
        lambda: adjust_prior([0.5], prevalence, 0.5),
        lambda: at_prevalence(0.9, 0.9, prevalence),
    ):
        with pytest.raises(ValueError, match="nothing to tell apart"):
            call()


def test_numbers_that_are_no_shares_are_refused():
    with pytest.raises(ValueError, match="1 of 2 values that are NaN or outside"):
        adjust_prior([0.5, math.nan], 0.5, 0.1)
    with pytest.raises(ValueError, match=r"recall is 1\.2"):
        at_prevalence(1.2, 0.9, 0.1)
    with pytest.raises(ValueError, match=r"specificity is 0\.9, from -0\.1"):
        at_prevalence(0.9, {"value": 0.9, "low": -0.1, "high": 0.95}, 0.1)
