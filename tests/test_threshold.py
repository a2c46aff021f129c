import json
import math

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from ml_core.errors import RunError
from ml_core.evaluation.cuts import Cuts
from ml_core.evaluation.out_of_bag import operating_metrics
from ml_core.evaluation.threshold import (
    METRICS,
    ChosenThreshold,
    ThresholdRule,
    best_threshold,
    choose_threshold,
)
from ml_core.metrics import compute_intervals, compute_metrics, resamples

RULES = {
    "f1": ThresholdRule("f_beta", beta=1),
    "f2": ThresholdRule("f_beta", beta=2),
    "recall": ThresholdRule("recall", at_least=0.9),
    "specificity": ThresholdRule("specificity", at_least=0.8),
    "cost": ThresholdRule("cost", cost_false_negative=5, cost_false_positive=2),
    "rare": ThresholdRule("cost", cost_false_negative=32, prevalence=0.0625),
    "youden": ThresholdRule("youden"),
}


def make_table(num_patches: int, seed: int = 0, prevalence: float = 0.5, num_levels: int = 0):
    generator = np.random.default_rng(seed)
    y_true = (generator.random(num_patches) < prevalence).astype(int)
    y_prob = 1 / (1 + np.exp(1 - 2 * y_true - generator.normal(size=num_patches)))
    return y_true, np.round(y_prob * num_levels) / num_levels if num_levels else y_prob


def measure(y_true: np.ndarray, y_prob: np.ndarray, threshold: float) -> dict[str, float]:
    """Return METRICS; quicker than `compute_metrics`, which has areas as well."""
    metrics = operating_metrics(np.array(confusion_cells(y_true, y_prob, threshold), dtype=float))
    return {name: float(value) for name, value in metrics.items()}


def confusion_cells(y_true, y_prob, threshold):
    return np.bincount(2 * y_true + (y_prob >= threshold), minlength=4)  # tn, fp, fn, tp


def goodness(rule: ThresholdRule, y_true: np.ndarray, y_prob: np.ndarray, threshold: float):
    """Return what the rule wants most of, as a reader of its docstring would compute it."""
    called = y_prob >= threshold
    recall, specificity = called[y_true == 1].mean(), 1 - called[y_true == 0].mean()
    if rule.kind == "f_beta":
        precision = y_true[called].mean()
        weight = rule.beta**2
        both = weight * precision + recall
        return (1 + weight) * precision * recall / both if both else 0.0
    if rule.kind == "recall":
        return threshold if recall >= rule.at_least else -math.inf
    if rule.kind == "specificity":
        return -threshold if specificity >= rule.at_least else -math.inf
    if rule.kind == "youden":
        return recall + specificity - 1
    share = rule.prevalence or y_true.mean()
    missed = rule.cost_false_negative * share * (1 - recall)
    return -missed - rule.cost_false_positive * (1 - share) * (1 - specificity)


@pytest.mark.parametrize("num_levels", [0, 50, 7, 2])
@pytest.mark.parametrize("name", RULES)
def test_no_threshold_is_better_than_the_chosen_one_and_none_as_good_is_higher(name, num_levels):
    rule = RULES[name]
    for seed in range(6):
        y_true, y_prob = make_table(150, seed, prevalence=0.3, num_levels=num_levels)
        all_of_them = {value: goodness(rule, y_true, y_prob, value) for value in np.unique(y_prob)}
        best = max(all_of_them.values())
        if best == -math.inf:
            with pytest.raises(RunError):
                best_threshold(y_true, y_prob, rule)
            continue
        as_good = [value for value, good in all_of_them.items() if good >= best - 1e-12]
        assert best_threshold(y_true, y_prob, rule) == max(as_good)


@pytest.mark.parametrize("beta", [0.5, 1, 2, 3.3])
def test_the_highest_f_beta_is_scikit_learns(beta):
    y_true, y_prob = make_table(120, prevalence=0.3, num_levels=30)
    best = max(fbeta_score(y_true, y_prob >= each, beta=beta) for each in np.unique(y_prob))
    chosen = best_threshold(y_true, y_prob, ThresholdRule("f_beta", beta=beta))
    assert fbeta_score(y_true, y_prob >= chosen, beta=beta) == pytest.approx(best, abs=1e-12)


def test_a_share_that_floats_cannot_multiply_is_still_reached():
    y_true = np.repeat([1, 0], 100)  # 0.07 * 100 is above 7, yet 7 of 100 tumours are 0.07
    y_prob = np.append(np.linspace(0.9, 0.5, 100), np.full(100, 0.1))
    assert best_threshold(y_true, y_prob, ThresholdRule("recall", at_least=0.07)) == y_prob[6]


def test_a_threshold_read_back_from_json_makes_the_same_calls():
    for seed in range(20):
        y_true, y_prob = make_table(500, seed)
        chosen = choose_threshold(y_true, y_prob, RULES["f2"], num_resamples=5)
        read = ChosenThreshold.from_dict(json.loads(json.dumps(chosen.to_dict())))
        assert read == chosen
        assert ((y_prob >= read.value) == (y_prob >= chosen.value)).all()
        assert read.value in y_prob, "a probability of the table, so its patch is called"


def test_neither_row_order_nor_blocks_change_what_is_chosen_or_expected(monkeypatch):
    y_true, y_prob = make_table(400, num_levels=30)
    shuffled = np.random.default_rng(1).permutation(400)
    for rule in RULES.values():
        first = choose_threshold(y_true, y_prob, rule, num_resamples=40)
        assert choose_threshold(y_true[shuffled], y_prob[shuffled], rule, 40) == first
        with monkeypatch.context() as patch:
            patch.setattr("ml_core.metrics.resampling.BLOCK_CELLS", 400 * 7)
            assert choose_threshold(y_true, y_prob, rule, num_resamples=40) == first


@pytest.mark.parametrize("name", RULES)
def test_expectations_equal_choosing_and_measuring_one_resample_at_a_time(name):
    y_true, y_prob = make_table(300, prevalence=0.4, num_levels=40)
    order = np.lexsort((y_true, -y_prob))
    y_true, y_prob = y_true[order], y_prob[order]
    chosen = choose_threshold(y_true, y_prob, RULES[name], num_resamples=30, seed=3)
    differences = {metric: [] for metric in METRICS}
    for times in np.concatenate(list(resamples(3, 30, 300))).astype(int):
        bag = np.repeat(y_true, times), np.repeat(y_prob, times)
        threshold = best_threshold(*bag, RULES[name])
        inside = measure(*bag, threshold)
        outside = measure(y_true[times == 0], y_prob[times == 0], threshold)
        for metric, values in differences.items():
            values.append(outside[metric] - inside[metric])
    here = compute_metrics(y_true, y_prob, chosen.value)
    score = compute_intervals(y_true, y_prob, chosen.value, num_resamples=1)
    for metric, values in differences.items():
        value = here[metric] + (1 - math.exp(-1)) * np.mean(values)
        ends = np.quantile(values, [0.025, 0.975]) - np.mean(values)
        low, high = value + math.sqrt(2 / (2 + math.e)) * ends
        low = min(low, value - math.sqrt(2) * (here[metric] - score[metric].low))
        high = max(high, value + math.sqrt(2) * (score[metric].high - here[metric]))
        expected = {"value": value, "low": max(low, 0), "high": min(high, 1)}
        assert chosen.expected[metric] == pytest.approx(
            {**expected, "in_sample": here[metric]}, abs=1e-12
        )


def count_held(rule: ThresholdRule, num_tables: int, num_patches: int, num_resamples: int):
    """Return in how many tables the interval held what another table gave."""
    held = dict.fromkeys(METRICS, 0)
    for seed in range(num_tables):
        chosen = choose_threshold(*make_table(num_patches, seed), rule, num_resamples)
        new = measure(*make_table(num_patches, 10_000 + seed), chosen.value)
        for metric in METRICS:
            expected = chosen.expected[metric]
            held[metric] += expected["low"] <= new[metric] <= expected["high"]
    return held


def test_the_interval_holds_what_new_patches_give_about_as_often_as_it_says():
    shares = [count / 120 for count in count_held(RULES["recall"], 120, 500, 150).values()]
    # 95 % with three standard errors; the quantiles of the plain out-of-bag recall hold 99.6 %.
    assert min(shares) >= 0.89
    assert np.mean(shares) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_the_interval_covers_on_a_thousand_tables(name):
    held = count_held(RULES[name], 1000, 1000, 1000)
    assert all(920 <= count <= 985 for count in held.values()), held


def test_what_is_best_of_noise_is_expected_to_be_worse_on_new_patches():
    generator = np.random.default_rng(0)
    optimism = []
    for _ in range(20):
        y_true, y_prob = generator.integers(0, 2, 60), generator.random(60)
        chosen = choose_threshold(y_true, y_prob, RULES["youden"], num_resamples=200)
        expected = chosen.expected["balanced_accuracy"]
        optimism.append(expected["in_sample"] - expected["value"])
    assert np.mean(optimism) > 0.03


def test_what_was_not_chosen_is_not_corrected():
    y_true, y_prob = make_table(500)
    chosen = choose_threshold(y_true, y_prob, RULES["f2"], num_resamples=50)
    at_half = compute_metrics(y_true, y_prob, 0.5)
    for metric in METRICS:
        assert chosen.at_half[metric]["value"] == pytest.approx(at_half[metric], abs=1e-12)
    fixed = choose_threshold(y_true, y_prob, ThresholdRule("fixed", value=0.5), num_resamples=50)
    assert (fixed.value, fixed.expected) == (0.5, chosen.at_half)


def test_cost_per_patch_is_what_the_errors_cost_at_the_stated_prevalence():
    y_true, y_prob = np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.arange(8, 0, -1) / 10
    rule = ThresholdRule("cost", cost_false_negative=10, prevalence=0.1)
    y_prob[3:7] = 0.35, 0.7, 0.4, 0.38
    chosen = choose_threshold(y_true, y_prob, rule, num_resamples=20)
    # One of four tumours missed, and one of four false alarms; the last tumour costs two more.
    assert chosen.value == 0.6
    assert chosen.expected["cost"]["in_sample"] == pytest.approx(10 * 0.1 / 4 + 0.9 / 4)


def test_dearer_misses_lower_the_threshold():
    y_true, y_prob = make_table(2000)
    thresholds = [
        best_threshold(y_true, y_prob, ThresholdRule("cost", cost_false_negative=cost))
        for cost in (0.1, 1.0, 10.0)
    ]
    assert thresholds == sorted(thresholds, reverse=True)
    # The classes' normal scores make 1 / (1 + cost) the best threshold (Elkan 2001).
    assert thresholds[1] == pytest.approx(0.5, abs=0.15)


def test_a_promise_that_most_new_tables_break_is_noted():
    notes, shares = 0, []
    for seed in range(20):
        chosen = choose_threshold(*make_table(400, seed), RULES["recall"], num_resamples=100)
        assert any("less than half" in note for note in chosen.notes) == (chosen.kept < 0.5)
        notes += bool(chosen.notes)
        shares.append(chosen.kept)
    assert 0 < notes < 20
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)
    assert choose_threshold(*make_table(400), RULES["f2"], num_resamples=10).kept is None


def test_a_model_without_an_error_is_not_promised_to_make_none():
    y_true = np.repeat([0, 1], 50)
    expected = choose_threshold(y_true, y_true * 0.9, RULES["recall"], num_resamples=20).expected
    for metric in METRICS:
        assert expected[metric]["value"] == expected[metric]["high"] == 1.0
        assert 0.85 < expected[metric]["low"] < 0.97, metric


def test_costs_at_which_no_call_pays_are_noted():
    y_true, y_prob = make_table(400)
    rule = ThresholdRule("cost", cost_false_negative=1, cost_false_positive=1000, prevalence=0.001)
    y_prob[np.flatnonzero(y_true == 0)[0]] = 1.0  # a false alarm above all
    (note,) = [each for each in choose_threshold(y_true, y_prob, rule, 20).notes if "costs" in each]
    assert "calling no patch a tumour costs 0.001 per patch" in note


def test_a_threshold_that_calls_everything_is_noted():
    y_true, y_prob = make_table(400)
    chosen = choose_threshold(y_true, 1 - y_prob, RULES["f2"], num_resamples=20)
    assert chosen.value == (1 - y_prob).min()
    assert any("calls every patch" in note for note in chosen.notes)


@pytest.mark.parametrize("kind", ["f_beta", "recall", "specificity", "cost", "youden"])
def test_where_there_is_nothing_to_choose_the_reason_is_said(kind):
    rule = ThresholdRule(kind)
    with pytest.raises(RunError, match="all 3 patches are tumour"):
        best_threshold([1, 1, 1], [0.1, 0.2, 0.3], rule)
    with pytest.raises(RunError, match="all 2 patches are normal"):
        choose_threshold([0, 0], [0.1, 0.2], rule)
    with pytest.raises(RunError, match=r"all 4 patches have the probability 0\.5"):
        best_threshold([0, 1, 0, 1], [0.5] * 4, rule)


def test_a_specificity_out_of_reach_is_refused_with_what_can_be_had():
    y_true, y_prob = np.array([0, 0, 0, 0, 1, 1]), np.array([0.9, 0.1, 0.2, 0.3, 0.9, 0.5])
    with pytest.raises(RunError, match=r"of 4 normal patches 1 share .* 0\.9, .* is 0\.7500"):
        best_threshold(y_true, y_prob, ThresholdRule("specificity", at_least=0.9))


def test_resamples_without_a_threshold_are_left_out_and_counted():
    y_true = np.array([0, 1] * 6)
    y_prob = np.where(y_true == 1, 0.9, 0.1)
    y_prob[0] = 0.9
    rule = ThresholdRule("specificity", at_least=0.8)
    chosen = choose_threshold(y_true, y_prob, rule, num_resamples=200)
    (note,) = [note for note in chosen.notes if "no threshold kept the rule" in note]
    assert 20 < int(note.split()[1]) < 180
    assert chosen.expected["recall"]["value"] is not None


def test_a_fixed_threshold_needs_neither_two_classes_nor_a_call():
    chosen = choose_threshold([0, 0, 0], [0.1, 0.2, 0.3], ThresholdRule("fixed", value=0.4))
    assert chosen.expected["recall"]["value"] is None
    assert chosen.expected["precision"]["value"] is None
    assert chosen.expected["specificity"]["value"] == 1.0


@pytest.mark.parametrize(
    ("y_prob", "words"),
    [([0.1, math.nan], "NaN or outside 0..1"), ([0.1], "one length"), ([0.1, 1.5], "outside 0..1")],
)
def test_arrays_that_are_no_probabilities_are_refused(y_prob, words):
    for function in (best_threshold, choose_threshold):
        with pytest.raises(ValueError, match=words):
            function([0, 1], y_prob, RULES["f2"])


def test_an_empty_table_and_an_impossible_interval_are_refused():
    with pytest.raises(ValueError, match="at least one patch"):
        choose_threshold([], [], RULES["f2"])
    with pytest.raises(ValueError, match="at least 1 resample"):
        choose_threshold(*make_table(50), RULES["f2"], num_resamples=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "f_bta"}, "unknown threshold rule 'f_bta'.* Did you mean 'f_beta'"),
        ({"beta": 0.0}, "beta of a threshold rule is 0.0"),
        ({"at_least": 1.1}, "up to 1"),
        ({"cost_false_negative": -1.0}, "cost_false_negative"),
        ({"prevalence": 1.0}, "prevalence"),
        ({"value": math.nan}, "value of a threshold rule is nan"),
    ],
)
def test_a_rule_with_an_impossible_number_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        ThresholdRule(**{"kind": "f_beta", **changes})


def test_rules_say_what_they_want():
    assert [str(rule) for rule in RULES.values()] == [
        "highest F1",
        "highest F2",
        "recall of at least 0.9",
        "specificity of at least 0.8",
        "lowest expected cost, 5 for a missed tumour and 2 for a false alarm",
        "lowest expected cost, 32 for a missed tumour and 1 for a false alarm, "
        "at prevalence 0.0625",
        "highest Youden's J",
    ]


def test_a_damaged_threshold_says_what_is_missing():
    content = choose_threshold(*make_table(50), RULES["f2"], num_resamples=5).to_dict()
    assert ChosenThreshold.from_dict({**content, "more": 1}).to_dict() == content
    with pytest.raises(RunError, match="KeyError: 'value'"):
        ChosenThreshold.from_dict({key: content[key] for key in content if key != "value"})
    with pytest.raises(RunError, match="unknown threshold rule"):
        ChosenThreshold.from_dict({**content, "rule": {"kind": "best"}})


def test_cuts_lie_between_distinct_probabilities_only():
    cuts = Cuts([1, 0, 1, 0], [0.3, 0.3, 0.8, 0.1])
    assert cuts.thresholds.tolist() == [0.8, 0.3, 0.1]
    assert [cuts.cut_at(each) for each in (0.9, 0.8, 0.31, 0.3, 0.0)] == [0, 1, 1, 2, 3]
    counts = cuts.count()
    assert counts.tp.tolist() == [[0, 1, 2, 2]]
    assert counts.calls.tolist() == [[0, 1, 3, 4]]
    assert counts.cells(np.array([2])).ravel().tolist() == [1, 1, 0, 2]  # tn, fp, fn, tp
