import math
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from ml_core.metrics import (
    HIGHER_IS_BETTER,
    Confusion,
    Interval,
    _resample_weights,
    _tie_ends,
    auc_standard_error,
    baseline_metrics,
    bootstrap_intervals,
    compute_metrics,
    confusion,
    pr_curve_points,
    roc_curve_points,
    weighted_areas,
)

# Worked by hand: 3 tumours, 5 normal; at 0.5 two tumours found, one missed, one false alarm.
Y_TRUE = np.array([1, 1, 1, 0, 0, 0, 0, 0])
Y_PROB = np.array([0.9, 0.6, 0.2, 0.7, 0.4, 0.3, 0.1, 0.0])


def noisy_scores(num_patches: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y_true = generator.integers(0, 2, num_patches)
    logit = generator.normal(size=num_patches) + 1.5 * (2 * y_true - 1)
    return y_true, 1 / (1 + np.exp(-logit))


def test_metrics_equal_the_numbers_worked_by_hand():
    metrics = compute_metrics(Y_TRUE, Y_PROB)
    expected = {
        "n": 8,
        "positives": 3,
        "prevalence": 3 / 8,
        "accuracy": 6 / 8,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "specificity": 4 / 5,
        "balanced_accuracy": (2 / 3 + 4 / 5) / 2,
        "f1": 2 / 3,
        "f2": 2 / 3,
        "brier": (0.1**2 + 0.4**2 + 0.8**2 + 0.7**2 + 0.4**2 + 0.3**2 + 0.1**2) / 8,
        "loss": -math.log(0.9 * 0.6 * 0.2 * 0.3 * 0.6 * 0.7 * 0.9) / 8,
        "roc_auc": (5 + 4 + 2) / 15,  # pairs in the right order
        "pr_auc": (1 / 1 + 2 / 3 + 3 / 6) / 3,
    }
    assert metrics == pytest.approx(expected)


def test_f2_weighs_a_missed_tumour_four_times_a_false_alarm():
    missed = compute_metrics([1, 1, 0, 0], [0.9, 0.1, 0.1, 0.1])["f2"]
    alarmed = compute_metrics([1, 1, 0, 0], [0.9, 0.9, 0.9, 0.1])["f2"]
    assert missed == pytest.approx(5 / (5 + 4))
    assert alarmed == pytest.approx(10 / (10 + 1))


def test_a_probability_at_the_threshold_is_a_positive_call():
    assert confusion([0, 1], [0.3, 0.3], threshold=0.3) == Confusion(tn=0, fp=1, fn=0, tp=1)


def test_loss_is_the_cross_entropy_that_training_minimises():
    logits = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(50) % 2
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    probs = logits.softmax(dim=1)[:, 1].numpy()
    assert compute_metrics(labels.numpy(), probs)["loss"] == pytest.approx(loss, rel=1e-12)


def test_loss_per_patch_replaces_what_a_saturated_probability_has_lost():
    metrics = compute_metrics([0, 1], [1.0, 1.0], nll=[50.0, 0.0])
    assert metrics["loss"] == 25.0
    assert math.isfinite(compute_metrics([0, 1], [1.0, 1.0])["loss"])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_leaves_ranking_metrics_undefined(label):
    metrics = compute_metrics([label] * 4, [0.1, 0.2, 0.6, 0.7])
    undefined = {name for name, value in metrics.items() if math.isnan(value)}
    only = {"specificity"} if label == 1 else {"recall"}
    assert undefined == {"roc_auc", "pr_auc", "balanced_accuracy"} | only


def test_precision_without_a_positive_call_is_undefined_and_f1_is_a_counted_zero():
    metrics = compute_metrics([0, 1, 1], [0.1, 0.2, 0.3])
    assert math.isnan(metrics["precision"])
    assert metrics["recall"] == metrics["f1"] == metrics["f2"] == 0.0
    assert math.isnan(compute_metrics([0, 0], [0.1, 0.2])["f1"])


@pytest.mark.parametrize(
    ("y_true", "y_prob", "words"),
    [
        ([], [], "at least one patch"),
        ([0, 1], [0.5], "one length"),
        ([[0, 1]], [[0.5, 0.5]], "1-d"),
        ([0, 2], [0.5, 0.5], "y_true holds 2"),
        ([0.0, math.nan], [0.5, 0.5], "y_true holds nan"),
        ([0, 1], [0.5, math.nan], "NaN or outside 0..1, the first at position 1"),
        ([0, 1], [-0.1, 0.5], "first at position 0: -0.1"),
        ([0, 1], [0.5, 1.5], "first at position 1: 1.5"),
    ],
)
def test_arrays_that_cannot_be_scored_are_refused(y_true, y_prob, words):
    for function in (compute_metrics, bootstrap_intervals, auc_standard_error, confusion):
        with pytest.raises(ValueError, match=words):
            function(y_true, y_prob)


def test_a_loss_that_is_not_one_finite_number_per_patch_is_refused():
    with pytest.raises(ValueError, match="one finite loss for each of the 2 patches"):
        compute_metrics([0, 1], [0.5, 0.5], nll=[0.1, math.inf])
    with pytest.raises(ValueError, match=r"nll has shape \(3,\)"):
        compute_metrics([0, 1], [0.5, 0.5], nll=[0.1, 0.1, 0.1])


def test_a_threshold_outside_the_probabilities_is_refused():
    with pytest.raises(ValueError, match=r"threshold is 1\.5; allowed"):
        compute_metrics([0, 1], [0.5, 0.5], threshold=1.5)


@pytest.mark.parametrize("num_levels", [2, 5, 50, None])
def test_weighted_areas_equal_scikit_learn_also_with_heavy_ties(num_levels):
    generator = np.random.default_rng(3)
    y_true, y_prob = noisy_scores(400)
    if num_levels is not None:
        y_prob = np.round(y_prob * num_levels) / num_levels
    weights = generator.poisson(1.0, (20, 400)).astype(float)
    order = np.argsort(-y_prob, kind="stable")
    roc_auc, pr_auc = weighted_areas(y_true[order], weights[:, order], _tie_ends(y_prob[order]))
    for row, weight in enumerate(weights):
        expected_roc = roc_auc_score(y_true, y_prob, sample_weight=weight)
        expected_pr = average_precision_score(y_true, y_prob, sample_weight=weight)
        assert roc_auc[row] == pytest.approx(expected_roc, abs=1e-12)
        assert pr_auc[row] == pytest.approx(expected_pr, abs=1e-12)


def test_weighted_areas_are_undefined_where_a_resample_holds_one_class():
    weights = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    roc_auc, pr_auc = weighted_areas(np.array([1, 1, 0]), weights, np.array([0, 1, 2]))
    assert np.isnan(roc_auc[:2]).all() and np.isnan(pr_auc[:2]).all()
    assert roc_auc[2] == pr_auc[2] == 1.0


def test_each_resample_draws_as_many_patches_as_there_are():
    weights = _resample_weights(seed=5, resamples=range(200), num_patches=301)
    assert (weights.sum(axis=1) == 301).all()
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.4)  # each patch, about once
    assert (weights == 0).mean() == pytest.approx(math.exp(-1), abs=0.01)
    assert not np.array_equal(weights[0], weights[1])


def test_bootstrap_intervals_equal_the_percentiles_of_metrics_computed_one_resample_at_a_time():
    y_true, y_prob = noisy_scores(120)
    y_prob = np.round(y_prob, 1)
    intervals = bootstrap_intervals(y_true, y_prob, threshold=0.4, num_resamples=40, seed=9)
    weights = _resample_weights(9, range(40), 120).astype(int)
    order = np.lexsort((y_true, -y_prob))
    y_true, y_prob = y_true[order], y_prob[order]
    slow = [
        compute_metrics(np.repeat(y_true, times), np.repeat(y_prob, times), threshold=0.4)
        for times in weights
    ]
    assert set(intervals) == set(HIGHER_IS_BETTER)
    for name, interval in intervals.items():
        expected = np.quantile([metrics[name] for metrics in slow], [0.025, 0.975])
        assert interval == pytest.approx(tuple(expected), abs=1e-12)


def test_intervals_depend_on_patches_and_seed_and_not_on_row_order_or_blocks(monkeypatch):
    y_true, y_prob = noisy_scores(500)
    y_prob = np.round(y_prob, 2)
    first = bootstrap_intervals(y_true, y_prob, num_resamples=50, seed=1)
    monkeypatch.setattr("ml_core.metrics._BLOCK_CELLS", 500 * 7)
    in_other_blocks = bootstrap_intervals(y_true, y_prob, num_resamples=50, seed=1)
    shuffled = np.random.default_rng(4).permutation(500)
    reordered = bootstrap_intervals(y_true[shuffled], y_prob[shuffled], num_resamples=50, seed=1)
    other_seed = bootstrap_intervals(y_true, y_prob, num_resamples=50, seed=2)
    for name, interval in first.items():
        assert interval == pytest.approx(in_other_blocks[name], abs=1e-12)
        assert interval == pytest.approx(reordered[name], abs=1e-12)
        assert interval != other_seed[name]


def test_the_interval_covers_the_true_auc_about_as_often_as_it_says():
    true_auc = 0.5 * (1 + math.erf(1.5))  # normal scores 3 apart: P(z < 3 / sqrt 2)
    covered = 0
    for seed in range(100):
        low, high = bootstrap_intervals(*noisy_scores(300, seed), num_resamples=200)["roc_auc"]
        covered += low <= true_auc <= high
    assert 87 <= covered <= 100


def test_an_undefined_metric_has_an_undefined_interval():
    intervals = bootstrap_intervals([1, 1, 1], [0.1, 0.2, 0.3], num_resamples=20)
    assert all(math.isnan(end) for end in intervals["roc_auc"] + intervals["precision"])
    assert intervals["recall"] == Interval(0.0, 0.0)


def test_memory_of_the_bootstrap_does_not_grow_with_the_number_of_resamples():
    y_true, y_prob = noisy_scores(5000)
    peaks = []
    for num_resamples in (200, 600):
        tracemalloc.start()
        bootstrap_intervals(y_true, y_prob, num_resamples=num_resamples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize(("num_resamples", "level"), [(0, 0.95), (10, 1.0), (10, 95)])
def test_an_impossible_interval_is_refused(num_resamples, level):
    with pytest.raises(ValueError, match="allowed are at least 1 resample"):
        bootstrap_intervals(Y_TRUE, Y_PROB, num_resamples=num_resamples, level=level)


def test_delong_standard_error_equals_its_definition_over_all_pairs():
    y_true, y_prob = noisy_scores(60)
    y_prob = np.round(y_prob, 1)
    pos, neg = y_prob[y_true == 1], y_prob[y_true == 0]
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    variance = wins.mean(axis=1).var(ddof=1) / len(pos) + wins.mean(axis=0).var(ddof=1) / len(neg)
    assert auc_standard_error(y_true, y_prob) == pytest.approx(math.sqrt(variance))


def test_delong_and_bootstrap_agree_on_the_width_of_the_auc_interval():
    y_true, y_prob = noisy_scores(1500)
    low, high = bootstrap_intervals(y_true, y_prob)["roc_auc"]
    assert 2 * 1.96 * auc_standard_error(y_true, y_prob) == pytest.approx(high - low, rel=0.1)


def test_standard_error_of_constant_predictions_is_zero_and_of_one_patch_undefined():
    assert auc_standard_error([0, 0, 1, 1], [0.5] * 4) == 0.0
    assert math.isnan(auc_standard_error([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4]))


def test_always_positive_scores_f2_0833_on_balanced_classes():
    baselines = baseline_metrics([0, 1] * 50)
    always_positive = baselines["always_positive"]
    assert always_positive["f2"] == pytest.approx(0.8333, abs=1e-4)
    assert always_positive["roc_auc"] == always_positive["accuracy"] == 0.5
    assert math.isnan(always_positive["loss"])


def test_baselines_are_undefined_where_they_must_be_and_the_prior_loses_its_entropy():
    baselines = baseline_metrics([0, 0, 0, 1])
    assert math.isnan(baselines["always_negative"]["precision"])
    assert baselines["always_negative"]["accuracy"] == 0.75
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert baselines["prior"]["loss"] == pytest.approx(entropy)
    assert baselines["prior"]["pr_auc"] == 0.25
    assert set(baselines) == {"always_positive", "always_negative", "prior"}


def test_curves_run_from_corner_to_corner_and_their_areas_are_the_metrics():
    y_true, y_prob = noisy_scores(2000)
    fpr, tpr = roc_curve_points(y_true, y_prob)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert len(fpr) <= 400
    area = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
    assert area == pytest.approx(compute_metrics(y_true, y_prob)["roc_auc"], abs=1e-3)
    recall, precision = pr_curve_points(y_true, y_prob, max_points=10_000)
    area = np.sum(np.diff(recall, prepend=0) * precision)
    assert area == pytest.approx(compute_metrics(y_true, y_prob)["pr_auc"])
    assert precision[-1] == y_true.mean()  # everything called positive


def test_curves_of_one_class_are_empty():
    assert len(roc_curve_points([1, 1], [0.2, 0.3]).x) == 0
    assert len(pr_curve_points([0, 0], [0.2, 0.3]).x) == 0
