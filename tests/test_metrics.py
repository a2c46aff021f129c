import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from ml_core.metrics import (
    HIGHER_IS_BETTER,
    Confusion,
    auc_standard_error,
    baseline_metrics,
    compute_intervals,
    compute_metrics,
    confusion,
    f_beta,
    pr_curve_points,
    roc_curve_points,
    tie_ends,
    weighted_areas,
)
from ml_core.metrics.weighted import WeightedMetrics

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
    for function in (compute_metrics, compute_intervals, auc_standard_error, confusion):
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
    roc_auc, pr_auc = weighted_areas(y_true[order], weights[:, order], tie_ends(y_prob[order]))
    for row, weight in enumerate(weights):
        expected_roc = sk.roc_auc_score(y_true, y_prob, sample_weight=weight)
        expected_pr = sk.average_precision_score(y_true, y_prob, sample_weight=weight)
        assert roc_auc[row] == pytest.approx(expected_roc, abs=1e-12)
        assert pr_auc[row] == pytest.approx(expected_pr, abs=1e-12)


def test_weighted_areas_are_undefined_where_a_resample_holds_one_class():
    weights = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    roc_auc, pr_auc = weighted_areas(np.array([1, 1, 0]), weights, np.array([0, 1, 2]))
    assert np.isnan(roc_auc[:2]).all() and np.isnan(pr_auc[:2]).all()
    assert roc_auc[2] == pr_auc[2] == 1.0


def tables():
    """Yield (name, y_true, y_prob, threshold): ties, few tumours, few normals, constants."""
    for seed in range(4):
        y_true, y_prob = noisy_scores(300, seed)
        yield f"continuous {seed}", y_true, y_prob, 0.5
        yield f"five levels {seed}", y_true, np.round(4 * y_prob) / 5 + 0.1, 0.5
        rare = np.append(np.flatnonzero(y_true == 0), np.flatnonzero(y_true == 1)[:5])
        yield f"five tumours {seed}", y_true[rare], y_prob[rare], 0.3
        yield f"five normals {seed}", 1 - y_true[rare], 1 - y_prob[rare], 0.8
        yield f"constant {seed}", y_true, np.full(300, 0.5), 0.5
        yield f"never called {seed}", y_true, y_prob / 2, 0.6
    yield "two patches", np.array([0, 1]), np.array([0.4, 0.4]), 0.4


@pytest.mark.parametrize(("name", "y_true", "y_prob", "threshold"), list(tables()))
def test_every_metric_equals_scikit_learn(name, y_true, y_prob, threshold):
    y_pred = (y_prob >= threshold).astype(int)
    undefined = {"zero_division": math.nan}
    expected = {
        "roc_auc": sk.roc_auc_score(y_true, y_prob),
        "pr_auc": sk.average_precision_score(y_true, y_prob),
        "accuracy": sk.accuracy_score(y_true, y_pred),
        "balanced_accuracy": sk.balanced_accuracy_score(y_true, y_pred),
        "f1": sk.f1_score(y_true, y_pred),
        "f2": sk.fbeta_score(y_true, y_pred, beta=2),
        "precision": sk.precision_score(y_true, y_pred, **undefined),
        "recall": sk.recall_score(y_true, y_pred, **undefined),
        "specificity": sk.recall_score(1 - y_true, 1 - y_pred, **undefined),
        "brier": sk.brier_score_loss(y_true, y_prob),
        "loss": sk.log_loss(y_true, y_prob),
    }
    found = compute_metrics(y_true, y_prob, threshold)
    assert {key: found[key] for key in HIGHER_IS_BETTER} == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )
    tn, fp, fn, tp = sk.confusion_matrix(y_true, y_pred).ravel()
    assert confusion(y_true, y_prob, threshold) == (tn, fp, fn, tp)


@pytest.mark.parametrize("beta", [0.5, 1, 2, 3.7])
def test_f_beta_of_counts_equals_scikit_learn_for_any_beta(beta):
    y_true, y_prob = noisy_scores(200)
    thresholds = [0.1, 0.5, 0.9]
    cells = np.array([confusion(y_true, y_prob, threshold) for threshold in thresholds], float)
    expected = [sk.fbeta_score(y_true, y_prob >= at, beta=beta) for at in thresholds]
    assert f_beta(cells[:, 3], cells[:, 1], cells[:, 2], beta) == pytest.approx(expected)
    assert math.isnan(f_beta(np.float64(0), np.float64(0), np.float64(0), beta))


@pytest.mark.parametrize("beta", [0, -1, math.inf, math.nan])
def test_a_beta_that_weighs_nothing_is_refused(beta):
    with pytest.raises(ValueError, match="allowed are positive numbers"):
        f_beta(np.float64(1), np.float64(1), np.float64(1), beta)


def test_weighted_metrics_equal_the_metrics_of_patches_repeated_that_often():
    y_true, y_prob = noisy_scores(90)
    y_prob = np.round(y_prob, 1)
    losses = np.random.default_rng(7).random(90)
    weights = np.random.default_rng(8).poisson(1.0, (30, 90))
    metrics = WeightedMetrics(y_true, y_prob, losses, 0.4).compute(weights.astype(float))
    assert set(metrics) == set(HIGHER_IS_BETTER)
    for row, times in enumerate(weights):
        labels, probs, nll = (np.repeat(each, times) for each in (y_true, y_prob, losses))
        expected = compute_metrics(labels, probs, 0.4, nll=nll)
        for name, values in metrics.items():
            assert values[row] == pytest.approx(expected[name], abs=1e-12), name


def test_weighted_metrics_of_a_row_do_not_depend_on_the_rows_beside_it():
    y_true, y_prob = noisy_scores(700)
    metrics = WeightedMetrics(y_true, y_prob, -np.log(y_prob), 0.5)
    weights = np.random.default_rng(8).poisson(1.0, (13, 700)).astype(float)
    together, alone = metrics.compute(weights), metrics.compute(weights[5:6])
    assert all(together[name][5] == alone[name][0] for name in together)


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
    assert recall[0] > 0  # no threshold reaches scikit-learn's first point, (0, 1)


def test_curves_of_one_class_are_empty():
    assert len(roc_curve_points([1, 1], [0.2, 0.3]).x) == 0
    assert len(pr_curve_points([0, 0], [0.2, 0.3]).x) == 0
