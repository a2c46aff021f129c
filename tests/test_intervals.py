import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ml_core.metrics import (
    HIGHER_IS_BETTER,
    Interval,
    balanced_accuracy_interval,
    compute_intervals,
    compute_metrics,
    confusion,
    delong_interval,
    f_beta,
    f_beta_interval,
    resamples,
    wilson_interval,
)


def noisy_scores(num_patches, seed=0, separation=1.5):
    generator = np.random.default_rng(seed)
    y_true = generator.integers(0, 2, num_patches)
    logit = generator.normal(size=num_patches) + separation * (2 * y_true - 1)
    return y_true, 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_worked_examples(successes, trials, low, high):
    """Newcombe, Statistics in Medicine 17 (1998), pages 857-872, table I, method 3."""
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_balanced_accuracy_gives_newcombes_worked_example_of_two_proportions():
    """Statistics in Medicine 17 (1998), pages 873-890, method 10: 56/70 - 48/80, 0.0524 to 0.3339.

    With 56 of 70 tumours called and 48 of 80 normals too, the difference is twice the balanced
    accuracy less 1.
    """
    low, high = balanced_accuracy_interval(tn=32, fp=48, fn=14, tp=56)
    assert (2 * low - 1, 2 * high - 1) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("tp", "fp", "fn"), [(40, 3, 7), (1, 0, 90), (5, 5, 5), (12, 0, 0), (0, 4, 9)]
)
def test_the_interval_of_f1_is_wilsons_of_the_share_it_is_made_of(tp, fp, fn):
    low, high = wilson_interval(tp, tp + fp + fn)
    expected = (2 * low / (1 + low), 2 * high / (1 + high))
    assert f_beta_interval(tp, fp, fn, beta=1) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("beta", [0.5, 1, 2, 5])
@pytest.mark.parametrize(
    ("tp", "fp", "fn"),
    [(40, 3, 7), (1, 0, 0), (20, 0, 0), (20, 9, 0), (20, 0, 9), (0, 9, 9), (1, 99_999, 3)],
)
def test_the_interval_of_f_beta_holds_its_value_within_0_and_1_and_is_no_point(tp, fp, fn, beta):
    low, high = f_beta_interval(tp, fp, fn, beta)
    assert 0 <= low <= float(f_beta(*np.array([tp, fp, fn], float), beta)) <= high <= 1
    assert low < high
    assert f_beta_interval(tp, fn, fp, 1 / beta) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_of_f2_is_the_delta_methods_where_counts_are_large():
    tp, fp, fn = 900_000, 120_000, 70_000
    value = 5 * tp / (5 * tp + fp + 4 * fn)
    error = value * (1 - value) * math.sqrt(1 / tp + (fp + 16 * fn) / (fp + 4 * fn) ** 2)
    low, high = f_beta_interval(tp, fp, fn, beta=2)
    assert (low, high) == pytest.approx(
        (value - 1.96 * error, value + 1.96 * error), abs=0.01 * error
    )


def test_what_was_never_seen_is_still_not_certain():
    """Resampling 20 tumours that were all found gives 1.0 to 1.0 for each of these."""
    intervals = compute_intervals([1, 0] * 20, [0.9, 0.1] * 20)
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "f2"):
        assert 0.8 < intervals[name].low < 0.96 and intervals[name].high == 1.0, name
    for name in ("roc_auc", "pr_auc"):
        assert 0.8 < intervals[name].low < 0.98 and intervals[name].high == 1.0, name


def test_each_metric_lies_in_its_interval_and_each_interval_in_the_metrics_range():
    for seed in range(20):
        y_true, y_prob = noisy_scores(60, seed)
        values = compute_metrics(y_true, y_prob, 0.4)
        intervals = compute_intervals(y_true, y_prob, 0.4, num_resamples=200)
        assert list(intervals) == list(HIGHER_IS_BETTER)
        for name, (low, high) in intervals.items():
            assert 0 <= low <= values[name] <= high and low < high, name
            assert high <= 1 or name == "loss"


def test_a_level_of_90_is_narrower_than_one_of_99_for_every_metric():
    y_true, y_prob = noisy_scores(200)
    narrow = compute_intervals(y_true, y_prob, num_resamples=500, level=0.9)
    wide = compute_intervals(y_true, y_prob, num_resamples=500, level=0.99)
    for name in HIGHER_IS_BETTER:
        assert wide[name].low < narrow[name].low < narrow[name].high < wide[name].high, name


def test_the_area_has_delongs_interval_and_the_threshold_moves_the_decisions_only():
    y_true, y_prob = noisy_scores(300)
    at_half = compute_intervals(y_true, y_prob, 0.5, num_resamples=50)
    at_third = compute_intervals(y_true, y_prob, 0.3, num_resamples=50)
    assert at_half["roc_auc"] == delong_interval(y_true, y_prob)
    for name in HIGHER_IS_BETTER:
        unmoved = name in ("roc_auc", "pr_auc", "brier", "loss")
        assert (at_half[name] == at_third[name]) == unmoved, name


def test_decisions_have_the_score_intervals_of_their_counts():
    y_true, y_prob = noisy_scores(90)
    tn, fp, fn, tp = confusion(y_true, y_prob, 0.3)
    found = compute_intervals(y_true, y_prob, 0.3, num_resamples=20, level=0.9)
    assert found["accuracy"] == wilson_interval(tp + tn, 90, 0.9)
    assert found["precision"] == wilson_interval(tp, tp + fp, 0.9)
    assert found["recall"] == wilson_interval(tp, tp + fn, 0.9)
    assert found["specificity"] == wilson_interval(tn, tn + fp, 0.9)
    assert found["balanced_accuracy"] == balanced_accuracy_interval(tn, fp, fn, tp, 0.9)
    assert found["f1"] == f_beta_interval(tp, fp, fn, 1, 0.9)
    assert found["f2"] == f_beta_interval(tp, fp, fn, 2, 0.9)


def test_a_mean_has_the_studentised_bootstrap_interval_worked_out_resample_by_resample():
    nll = np.random.default_rng(2).lognormal(0, 1, 12)
    nll.sort()  # the order in which the resamples draw them, since all else is equal
    studentised = []
    for times in np.concatenate(list(resamples(4, 200, 12))).astype(int):
        drawn = np.repeat(nll, times)
        studentised.append((drawn.mean() - nll.mean()) / drawn.std())
    low, high = np.quantile(studentised, [0.05, 0.95])
    found = compute_intervals([1] * 12, [0.5] * 12, num_resamples=200, level=0.9, seed=4, nll=nll)
    assert found["loss"] == pytest.approx(
        (max(0, nll.mean() - high * nll.std()), nll.mean() - low * nll.std())
    )


def test_pr_auc_has_the_logit_interval_of_its_spread_over_resamples():
    y_true, y_prob = noisy_scores(80)
    order = np.lexsort((y_true, -y_prob))
    areas = [
        average_precision_score(y_true[order], y_prob[order], sample_weight=weights)
        for weights in np.concatenate(list(resamples(4, 100, 80)))
    ]
    value = average_precision_score(y_true, y_prob)
    reach = 1.96 * np.std(areas, ddof=1) / (value * (1 - value))
    centre = math.log(value / (1 - value))
    expected = [1 / (1 + math.exp(-centre - side * reach)) for side in (-1, 1)]
    found = compute_intervals(y_true, y_prob, num_resamples=100, seed=4)["pr_auc"]
    assert found == pytest.approx(tuple(expected), abs=1e-5)


def test_means_have_about_the_interval_of_a_t_test_where_the_tail_is_short():
    generator = np.random.default_rng(2)
    y_true, nll = np.array([0, 1] * 300), generator.normal(2, 0.3, 600)
    low, high = compute_intervals(y_true, np.full(600, 0.5), nll=nll)["loss"]
    error = nll.std(ddof=1) / math.sqrt(600)
    assert (low, high) == pytest.approx(
        (nll.mean() - 1.96 * error, nll.mean() + 1.96 * error), abs=0.2 * error
    )


def test_the_interval_of_a_mean_reaches_further_towards_a_long_tail():
    nll = np.random.default_rng(2).lognormal(0, 1.5, 300)
    low, high = compute_intervals(np.array([0, 1] * 150), np.full(300, 0.5), nll=nll)["loss"]
    assert high - nll.mean() > 1.3 * (nll.mean() - low)


def test_intervals_depend_on_patches_and_seed_and_not_on_row_order_or_blocks(monkeypatch):
    y_true, y_prob = noisy_scores(500)
    y_prob = np.round(y_prob, 2)
    first = compute_intervals(y_true, y_prob, num_resamples=50, seed=1)
    monkeypatch.setattr("ml_core.metrics.resampling.BLOCK_CELLS", 500 * 7)
    assert compute_intervals(y_true, y_prob, num_resamples=50, seed=1) == first
    shuffled = np.random.default_rng(4).permutation(500)
    reordered = compute_intervals(y_true[shuffled], y_prob[shuffled], num_resamples=50, seed=1)
    other_seed = compute_intervals(y_true, y_prob, num_resamples=50, seed=2)
    for name, interval in first.items():
        assert interval == pytest.approx(reordered[name], abs=1e-12)
        assert (interval != other_seed[name]) == (name in ("pr_auc", "brier", "loss")), name


def test_one_class_leaves_undefined_what_needs_two():
    intervals = compute_intervals([1, 1, 1], [0.1, 0.2, 0.3], num_resamples=20)
    undefined = {name for name, ends in intervals.items() if math.isnan(ends.low)}
    assert undefined == {"roc_auc", "pr_auc", "balanced_accuracy", "precision", "specificity"}
    assert all(math.isnan(intervals[name].high) for name in undefined)
    assert intervals["recall"] == wilson_interval(0, 3)


def test_one_patch_of_a_class_is_no_ground_for_an_area():
    intervals = compute_intervals([0, 0, 1], [0.1, 0.2, 0.3], num_resamples=50)
    assert all(math.isnan(end) for end in intervals["roc_auc"] + intervals["pr_auc"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_patches", [1, 2, 3, 5])
def test_very_few_patches_give_wide_or_undefined_intervals_and_no_warning(num_patches):
    for seed in range(10):
        y_true, y_prob = noisy_scores(num_patches, seed)
        for low, high in compute_intervals(y_true, y_prob, num_resamples=100).values():
            assert math.isnan(low) == math.isnan(high)
            assert math.isnan(low) or low < high


def test_a_loss_that_is_the_same_for_every_patch_has_no_spread():
    intervals = compute_intervals([0, 1] * 50, [0.5] * 100, num_resamples=20)
    assert intervals["loss"] == Interval(math.log(2), math.log(2))
    assert intervals["brier"] == Interval(0.25, 0.25)
    assert intervals["roc_auc"] == Interval(0.5, 0.5)


@pytest.mark.parametrize(("num_resamples", "level"), [(0, 0.95), (10, 1.0), (10, 95)])
def test_an_impossible_interval_is_refused(num_resamples, level):
    with pytest.raises(ValueError, match="allowed are at least 1 resample"):
        compute_intervals([0, 1], [0.1, 0.2], num_resamples=num_resamples, level=level)
