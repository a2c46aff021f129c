import numpy as np
import pytest
from fabricated_baselines import fabricate_baselines
from fabricated_run import fabricate_predictions

from ml_core.evaluation.baselines import BASELINES, BaselineTable
from ml_core.evaluation.predictions import evaluate_predictions
from ml_core.evaluation.report.scores import (
    BASELINE_LABELS,
    check_baselines,
    describe_baselines,
    score_rows,
)


def scores_of(separation=3.2, **separations):
    """The content of metrics.json of a fabricated model beside fabricated baselines."""
    predictions = fabricate_predictions(separation=separation)
    table = fabricate_baselines(predictions, **separations)
    return evaluate_predictions(predictions, num_resamples=50, baselines=table)


def row_of(scores, name="roc_auc"):
    return next(row for row in score_rows(scores) if row.name == name)


def test_every_baseline_that_can_be_made_has_a_label():
    assert tuple(BASELINE_LABELS) == BASELINES


def test_every_baseline_stands_beside_every_metric():
    scores = scores_of()
    for row in score_rows(scores):
        assert tuple(row.baselines) == BASELINES
        for name in BASELINES:
            assert row.baselines[name] == scores["baselines"][name][row.name]
    for name, paired in row_of(scores).differences.items():
        assert vars(paired) == scores["baselines"][name]["auc_difference"]
    assert tuple(row_of(scores).differences) == BASELINES


def test_a_model_above_all_six_has_nothing_to_answer_for():
    rows = score_rows(scores_of(separation=4.0))
    assert {row.standing for row in rows if row.standing} == {"better"}
    assert check_baselines(rows) == []


def test_a_baseline_that_is_not_beaten_is_named_with_both_numbers_and_the_paired_interval():
    scores = scores_of(colour_histogram=3.0)
    row = row_of(scores)
    assert row.not_beaten == ("colour_histogram",)
    assert row.standing in ("worse", "overlaps")
    (finding,) = check_baselines([row])
    assert finding.id == "not-above-baseline"
    baseline = scores["baselines"]["colour_histogram"]
    numbers = f"{row.value:.3f} against {baseline['roc_auc']:.3f}, paired difference"
    assert f": colour histogram in ROC-AUC ({numbers} " in finding.message
    assert "mean colour" not in finding.message


def test_a_paired_interval_decides_where_the_intervals_of_each_overlap():
    predictions = fabricate_predictions()
    table = fabricate_baselines(predictions)
    noise = np.random.default_rng(0).normal(size=len(predictions))
    nearly = 1 / (1 + np.exp(-(predictions.logit + 0.4 * noise)))  # nearly the model's own answers
    y_prob = {**table.probs_of("valid", predictions.index, predictions.labels)}
    y_prob["random_features"] = nearly
    table = BaselineTable("valid", predictions.index, predictions.labels, y_prob)
    row = row_of(evaluate_predictions(predictions, num_resamples=50, baselines=table))
    assert row.low < row.baselines["random_features"] < row.value
    assert row.differences["random_features"].low > 0
    assert row.standing == "better" and row.not_beaten == ()


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [(0.01, 0.2, "better"), (-0.01, 0.2, "overlaps"), (0.0, 0.2, "overlaps"),
     (-0.2, -0.01, "worse")],
)  # fmt: skip
def test_the_worst_comparison_is_the_standing(low, high, standing):
    scores = scores_of(separation=4.0)
    difference = {"value": (low + high) / 2, "low": low, "high": high, "p": 0.5}
    scores["baselines"]["mean_colour"]["auc_difference"] = difference
    row = row_of(scores)
    assert row.standing == standing
    assert row.not_beaten == (() if standing == "better" else ("mean_colour",))


def test_lower_is_better_for_the_loss_and_its_baselines():
    row = row_of(scores_of(separation=0.0), "loss")
    known = {name: value for name, value in row.baselines.items() if value is not None}
    assert set(known) == set(BASELINES) - {"always_positive", "always_negative"}
    assert row.best_baseline_value == min(known.values())
    assert row.standing == "worse" and set(row.not_beaten) == set(known)
    assert row_of(scores_of(separation=4.0), "loss").standing == "better"


def test_precision_recall_and_specificity_are_not_compared():
    rows = score_rows(scores_of(separation=0.0))
    silent = {row.name for row in rows if not row.standing}
    assert silent == {"precision", "recall", "specificity"}
    assert all(row.not_beaten == () for row in rows if row.name in silent)


def test_scores_of_a_time_before_the_six_are_still_read():
    scores = evaluate_predictions(fabricate_predictions(separation=4.0), num_resamples=50)
    del scores["baseline_facts"]
    row = row_of(scores)
    assert tuple(row.baselines) == BASELINES[:3]
    assert (row.standing, row.differences) == ("better", {})
    assert describe_baselines(scores) == ""


def test_with_one_class_nothing_undefined_is_compared():
    predictions = fabricate_predictions(y_true=np.ones(1500, int))
    scores = evaluate_predictions(
        predictions, num_resamples=20, baselines=fabricate_baselines(predictions)
    )
    row = row_of(scores)
    assert (row.standing, row.best_baseline, row.not_beaten, row.differences) == ("", "", (), {})
    check_baselines(score_rows(scores))


def test_what_the_baselines_know_is_said_in_a_sentence():
    text = describe_baselines(scores_of())
    assert "logistic regressions on 20,000 of the 20,000 train patches used" in text
    assert "as many of each class; the prior is 0.500, as drawn in training" in text
