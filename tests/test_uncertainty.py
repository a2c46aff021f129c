import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from fabricated_run import fabricate_predictions

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions, sigmoid
from ml_core.evaluation.uncertainty import measure_uncertainty
from ml_core.evaluation.uncertainty.abstention import fewest_to_prove, find_abstention
from ml_core.evaluation.uncertainty.plots import plot_risk_coverage, plot_seed_agreement
from ml_core.evaluation.uncertainty.risk_coverage import (
    aurc_interval,
    aurc_of_an_oracle,
    compute_aurc,
    compute_risk_coverage,
    rank_by_confidence,
)
from ml_core.evaluation.uncertainty.seed_agreement import fleiss_kappa
from ml_core.page.svg import figure_to_svg


def make_predictions(logit, y_true, **changes) -> Predictions:
    logit = np.array(logit, dtype=float)
    fields = {"split": "valid", "index": np.arange(len(logit)), "y_true": np.array(y_true)}
    return Predictions(**{**fields, "logit": logit, "y_prob": sigmoid(logit), **changes})


def draw_predictions(num_patches: int, seed: int, spread: float = 2.5) -> Predictions:
    """Draw labels with the probabilities that the logits say: a calibrated model."""
    generator = np.random.default_rng(seed)
    logit = spread * generator.normal(size=num_patches)
    return make_predictions(logit, (generator.random(num_patches) < sigmoid(logit)).astype(int))


def aurc_of(predictions: Predictions, threshold: float = 0.5) -> float:
    return compute_aurc(rank_by_confidence(predictions, threshold).expected_wrong)


def test_the_area_of_four_patches_worked_by_hand():
    # surest first: right, wrong, right, wrong: the error rates are 0, 1/2, 1/3, 1/2
    predictions = make_predictions([4.0, -3.0, -2.0, 1.0], [1, 1, 0, 0])
    assert aurc_of(predictions) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert aurc_of_an_oracle(4, 2) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert compute_risk_coverage(rank_by_confidence(predictions, 0.5)).risk == pytest.approx(
        [0, 1 / 2, 1 / 3, 1 / 2]
    )


def test_ties_count_as_the_mean_over_their_orders():
    wrong = [1, 0, 1, 0, 0, 1]  # the second to the fifth are equally sure
    predictions = make_predictions([9, 5, 5, 5, 5, 1], [1 - each for each in wrong])
    areas = [
        compute_aurc(np.array([wrong[0], *middle, wrong[5]], dtype=float))
        for middle in itertools.permutations(wrong[1:5])
    ]
    assert aurc_of(predictions) == pytest.approx(np.mean(areas))
    curve = compute_risk_coverage(rank_by_confidence(predictions, 0.5))
    assert curve.coverage == pytest.approx([1 / 6, 5 / 6, 1])  # no threshold parts ties


def test_where_all_are_equally_sure_the_area_is_that_of_chance():
    predictions = make_predictions([1.0] * 8, [1, 0, 1, 1, 0, 1, 1, 1])
    found = measure_uncertainty(predictions, 0.5).to_dict()
    assert found["aurc"]["value"] == pytest.approx(found["aurc_of_chance"]) == pytest.approx(0.25)


def test_no_order_of_the_errors_has_a_smaller_area_than_the_oracle():
    for wrong in itertools.product([0, 1], repeat=6):
        area = compute_aurc(np.array(wrong, dtype=float))
        best = aurc_of_an_oracle(6, sum(wrong))
        assert area >= best - 1e-12
        assert (area == pytest.approx(best)) == (list(wrong) == sorted(wrong))


def test_confidence_is_the_probability_of_the_call_at_any_threshold():
    # at 0.2 the second is called tumour with probability 0.3: the least sure, though the logit of
    # the third, normal with 0.85, is nearer to that of the threshold
    predictions = make_predictions(np.log([4.0, 3 / 7, 3 / 17]), [1, 0, 0])
    ranked = rank_by_confidence(predictions, 0.2)
    assert sigmoid(ranked.confidence) == pytest.approx([0.85, 0.8, 0.3])
    assert ranked.is_wrong.tolist() == [False, False, True]


def test_a_calibrated_model_orders_its_errors_better_so_than_by_distance_from_the_threshold():
    predictions = draw_predictions(4000, seed=0)
    ranked = rank_by_confidence(predictions, 0.1)
    distance = np.abs(predictions.logit - np.log(0.1 / 0.9))
    wrong = (predictions.y_prob >= 0.1) != (predictions.labels == 1)
    by_distance = compute_aurc(wrong[np.argsort(-distance)].astype(float))
    assert compute_aurc(ranked.expected_wrong) < 0.8 * by_distance


def test_the_curve_has_at_most_101_points_and_ends_at_the_error_rate_of_all():
    predictions = fabricate_predictions()
    curve = compute_risk_coverage(rank_by_confidence(predictions, 0.5))
    assert len(curve.coverage) == 101 and curve.coverage[-1] == 1
    wrong = (predictions.y_prob >= 0.5) != (predictions.labels == 1)
    assert curve.risk[-1] == wrong.mean()
    for column in (curve.low, curve.high):
        assert len(column) == 101
    assert all(
        low <= risk <= high
        for low, risk, high in zip(curve.low, curve.risk, curve.high, strict=True)
    )
    surest = np.argsort(-np.abs(predictions.logit))[: round(curve.coverage[30] * 1500)]
    assert curve.risk[30] == pytest.approx(wrong[surest].mean())


def test_the_interval_of_the_area_holds_the_truth_as_often_as_it_says():
    truth = aurc_of(draw_predictions(400_000, seed=999))
    held = 0
    for seed in range(150):
        ranked = rank_by_confidence(draw_predictions(400, seed), 0.5)
        low, high = aurc_interval(ranked, 200, 0.95, seed)
        held += low <= truth <= high
    assert held / 150 > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 150)


def test_resamples_keep_ties_together():
    predictions = draw_predictions(600, seed=3)
    tied = replace(predictions, logit=np.round(predictions.logit))
    interval = aurc_interval(rank_by_confidence(tied, 0.5), 300, 0.95, 0)
    untied = aurc_interval(rank_by_confidence(predictions, 0.5), 300, 0.95, 0)
    assert interval == pytest.approx(untied, rel=0.15)
    one = make_predictions(np.ones(600), predictions.labels)
    low, high = aurc_interval(rank_by_confidence(one, 0.5), 2000, 0.95, 0)
    rate = (predictions.labels == 0).mean()
    reach = 1.96 * np.sqrt(rate * (1 - rate) / 600)  # of one tie the area is a plain proportion
    assert (low, high) == pytest.approx((rate - reach, rate + reach), abs=0.004)


def test_without_an_error_the_area_is_zero_up_to_what_the_patches_can_vouch_for():
    found = measure_uncertainty(make_predictions([3.0, -2.0] * 20, [1, 0] * 20), 0.5).to_dict()
    assert found["aurc"]["value"] == found["aurc"]["low"] == found["aurc_of_an_oracle"] == 0
    assert 0.05 < found["aurc"]["high"] < 0.12
    assert found["abstention"] is None and "no error among these 40" in found["why_no_abstention"]


@pytest.mark.parametrize(
    ("threshold", "target_risk", "least"), [(0.5, 0.1, 0.45), (0.2, 0.1, 0.45), (0.2, 0.05, 0.08)]
)
def test_on_new_patches_the_error_rate_is_kept_as_often_as_promised(threshold, target_risk, least):
    new = draw_predictions(100_000, seed=999)
    wrong = (new.y_prob >= threshold) != (new.labels == 1)
    exceeded, coverage = 0, []
    for seed in range(200):
        ranked = rank_by_confidence(draw_predictions(600, seed), threshold)
        found = find_abstention(ranked, threshold, target_risk)
        if found is None:
            coverage.append(0.0)
            continue
        kept = (new.y_prob <= found.below) | (new.y_prob >= found.above)
        exceeded += wrong[kept].mean() > target_risk
        coverage.append(kept.mean())
    assert exceeded / 200 <= 0.05  # 1 - level; a rule without correction exceeds it in half
    assert np.mean(coverage) > least  # and not by calling nothing


@pytest.mark.parametrize("threshold", [0.5, 0.13, 0.9])
def test_the_published_probabilities_keep_exactly_the_patches_that_were_counted(threshold):
    num_found = 0
    for seed in range(20):
        drawn = draw_predictions(500, seed)
        probs = drawn.y_prob  # log-odds made of them, as by isotonic calibration, are rounded
        predictions = replace(drawn, logit=np.log(probs) - np.log1p(-probs))
        found = find_abstention(rank_by_confidence(predictions, threshold), threshold, 0.12)
        if found is None:
            continue
        num_found += 1
        kept = (predictions.y_prob <= found.below) | (predictions.y_prob >= found.above)
        calls = predictions.y_prob >= threshold
        assert kept.sum() == found.num_kept
        assert (calls != predictions.labels)[kept].sum() == found.num_wrong
        assert found.below < threshold <= found.above
    assert num_found >= 15


def test_patches_whose_probabilities_are_all_one_are_not_parted():
    """Their logits order them, but nobody could abstain by a probability that is 1.0 for all."""
    predictions = draw_predictions(1500, seed=0)
    overconfident = make_predictions(60 * predictions.logit, predictions.labels)
    assert find_abstention(rank_by_confidence(predictions, 0.5), 0.5, 0.05) is not None
    assert find_abstention(rank_by_confidence(overconfident, 0.5), 0.5, 0.05) is None


def test_a_wrong_label_among_the_surest_does_not_end_the_search():
    predictions = draw_predictions(1500, seed=1)
    surest = np.argsort(-np.abs(predictions.logit))[:3]
    labels = predictions.labels.copy()
    labels[surest] = predictions.logit[surest] < 0
    clean = find_abstention(rank_by_confidence(predictions, 0.5), 0.5, 0.08)
    noisy = find_abstention(rank_by_confidence(replace(predictions, y_true=labels), 0.5), 0.5, 0.08)
    assert clean is not None and noisy is not None
    assert noisy.num_kept > 0.9 * clean.num_kept


def test_a_target_that_all_calls_keep_abstains_from_none():
    predictions = make_predictions([5.0, -5.0] * 100, [1, 0] * 100)
    found = measure_uncertainty(predictions, 0.3, target_risk=0.1).to_dict()["abstention"]
    assert found["coverage"] == 1 and found["risk"]["value"] == 0
    assert (found["below"], found["above"]) == (np.nextafter(0.3, 0), 0.3)


def test_why_there_is_no_abstention_is_said_in_figures():
    few = measure_uncertainty(draw_predictions(50, seed=0), 0.5, target_risk=0.01)
    assert few.abstention is None
    assert few.why_no_abstention == (
        "408 patches without an error are needed to prove an error rate of at most 1.0 %, and "
        "there are 50 in all"
    )
    assert fewest_to_prove(0.01, 0.95) == 408  # 0.99 ** 408 is just below 0.05 / 3
    chance = make_predictions(np.linspace(-1, 1, 400), np.arange(400) // 2 % 2)
    unsure = measure_uncertainty(chance, 0.5, target_risk=0.1)
    assert "even the calls that the model is surest of err too often" in unsure.why_no_abstention
    assert "no-abstention" in [finding.id for finding in unsure.findings]


def test_without_a_target_half_of_the_error_rate_is_asked_for():
    predictions = draw_predictions(2000, seed=0)
    found = measure_uncertainty(predictions, 0.5).to_dict()
    assert found["abstention"]["target_risk"] == found["aurc_of_chance"] / 2
    assert found["abstention"]["risk"]["high"] < found["aurc_of_chance"]


def test_the_agreement_of_raters_worked_by_hand():
    # three raters, votes 3, 3, 2, 0: alike 1, 1, 1/3, 1; the rate is 8 / 12
    chance = (2 / 3) ** 2 + (1 / 3) ** 2
    kappa = ((1 + 1 + 1 / 3 + 1) / 4 - chance) / (1 - chance)
    assert fleiss_kappa(np.array([3, 3, 2, 0]), 3) == pytest.approx(kappa)
    assert fleiss_kappa(np.array([2, 0, 2, 0]), 2) == 1
    assert np.isnan(fleiss_kappa(np.array([2, 2]), 2))
    drawn = np.random.default_rng(0).binomial(3, 0.3, 50_000)
    assert fleiss_kappa(drawn, 3) == pytest.approx(0, abs=0.01)


def test_seeds_are_counted_patch_by_patch():
    predictions = make_predictions([2.0, 2.0, -2.0, -2.0], [1, 0, 0, 1])
    other = make_predictions([-1.0, 1.0, 1.0, -1.0], [1, 0, 0, 1])  # the other way round
    seeds = {
        "seed1": make_predictions([2.0, 2.0, -2.0, 1.0], [1, 0, 0, 1]),
        "seed2": replace(other, index=other.index[::-1], y_true=other.labels[::-1]),
    }
    found = measure_uncertainty(predictions, 0.5, seed_predictions=seeds, run_name="seed0")
    content = found.to_dict()["seeds"]
    assert content["runs"] == ["seed0", "seed1", "seed2"] and content["num_runs"] == 3
    # votes of tumour: 2, 3, 1, 1 (the second seed's rows come the other way round)
    assert content["all_agree"] == 0.25
    assert [(each["votes"], each["n"], each["error"]) for each in content["by_votes"]] == [
        (0, 0, None), (1, 2, 0.5), (2, 1, 0.0), (3, 1, 1.0),
    ]  # fmt: skip
    assert content["error_when_agree"]["value"] == 1
    assert content["error_when_split"]["value"] == pytest.approx(1 / 3)
    with pytest.raises(RunError, match="seed1 are of split 'test'"):
        measure_uncertainty(
            predictions, 0.5, seed_predictions={"seed1": replace(predictions, split="test")}
        )


def test_a_model_that_errs_as_often_where_it_is_sure_is_a_warning():
    generator = np.random.default_rng(0)
    predictions = make_predictions(generator.normal(size=600), generator.integers(0, 2, 600))
    ids = {finding.id: finding for finding in measure_uncertainty(predictions, 0.5).findings}
    assert ids["confidence-orders-no-errors"].severity == "warning"
    sound = measure_uncertainty(draw_predictions(600, seed=0), 0.5).findings
    assert [finding.id for finding in sound] == ["abstention"]


def test_every_figure_of_a_finding_is_of_the_table():
    found = measure_uncertainty(draw_predictions(2000, seed=0), 0.5)
    content = found.to_dict()
    (finding,) = content["findings"]
    for part in (
        f"{100 * content['abstention']['risk']['value']:.1f} % of the calls are wrong instead of "
        f"{100 * content['risk']['value']:.1f} %",
        f"between {content['abstention']['below']:.3f} and {content['abstention']['above']:.3f}",
        f"the {100 - 100 * content['abstention']['coverage']:.1f} % of patches",
    ):
        assert part in finding["message"]


def test_seeds_that_never_disagree_are_said_to_agree_on_everything():
    predictions = draw_predictions(500, seed=0)
    found = measure_uncertainty(predictions, 0.5, seed_predictions={"seed1": predictions})
    content = found.to_dict()["seeds"]
    assert content["error_when_split"] == {"value": None, "low": None, "high": None}
    message = next(each.message for each in found.findings if each.id == "seeds-agreement")
    assert "100.0 % of the patches alike" in message and "do not" not in message


def test_misuse_is_refused_in_words():
    predictions = draw_predictions(100, seed=0)
    with pytest.raises(ValueError, match="target_risk is 1; allowed are rates between 0 and 1"):
        measure_uncertainty(predictions, 0.5, target_risk=1)
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        measure_uncertainty(predictions, 1.5)
    with pytest.raises(RunError, match="have no labels"):
        measure_uncertainty(replace(predictions, y_true=None), 0.5)


def test_the_table_is_plain_json_and_the_same_each_time():
    predictions = fabricate_predictions()
    seeds = {"seed1": fabricate_predictions(y_true=predictions.y_true, seed=0)}
    first, second = (
        measure_uncertainty(predictions, 0.5, seed_predictions=seeds, num_resamples=100).to_dict()
        for _ in range(2)
    )
    assert first == second
    json.dumps(first, allow_nan=False)


@pytest.mark.parametrize("target_risk", [None, 0.001])
def test_the_figures_say_what_the_table_holds(target_risk):
    predictions = draw_predictions(1500, seed=0)
    seeds = {"seed1": replace(predictions, y_prob=predictions.y_prob[::-1])}
    content = measure_uncertainty(
        predictions, 0.5, seed_predictions=seeds, target_risk=target_risk
    ).to_dict()
    svg = figure_to_svg(plot_risk_coverage(content), "risk", "risk against coverage")
    assert f"area {content['aurc']['value']:.3f}" in svg
    assert ("at most" in svg) == (target_risk is None)
    svg = figure_to_svg(plot_seed_agreement(content["seeds"]), "seeds", "agreement of seeds")
    assert f"all alike on {100 * content['seeds']['all_agree']:.1f} % of patches" in svg
    assert all(str(each["n"]) in svg for each in content["seeds"]["by_votes"])
