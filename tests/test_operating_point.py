"""The slider's counts are scikit-learn's at each of its thresholds; the panel starts as scored."""

import re

import numpy as np
import pytest
from fabricated_run import fabricate_predictions, fabricate_run
from sklearn.metrics import confusion_matrix

from ml_core.evaluation.predictions import evaluate_predictions
from ml_core.evaluation.report import render_report
from ml_core.evaluation.report.operating_point import (
    NUM_POSITIONS,
    build_operating_point,
    count_calls,
)
from ml_core.evaluation.report.unit_picture import distribution
from ml_core.runs import write_json


@pytest.mark.parametrize("digits", [1, 2, 3, 17])
def test_the_counts_at_every_position_are_those_of_scikit_learn_ties_included(digits):
    predictions = fabricate_predictions()
    labels, probs = predictions.labels, np.round(predictions.y_prob, digits)
    frozen = float(probs[7])
    calls = count_calls(labels, probs, frozen)
    assert frozen in calls.thresholds
    assert len(calls.thresholds) in (NUM_POSITIONS, NUM_POSITIONS + 1)
    for threshold, tp, fp in zip(calls.thresholds, calls.tp, calls.fp, strict=True):
        tn, wrong, fn, right = confusion_matrix(labels, probs >= threshold, labels=[0, 1]).ravel()
        assert (tp, fp) == (right, wrong), threshold
        assert (calls.positives - tp, calls.negatives - fp) == (fn, tn)


def test_every_thousandth_is_the_number_a_reader_would_type():
    calls = count_calls(np.array([0, 1]), np.array([0.3, 0.7]), 0.3)
    assert calls.thresholds.tolist() == [float(f"{k / 1000:.3f}") for k in range(1001)]


@pytest.mark.parametrize("threshold", [0.5, 0.123456789, 0.0, 1.0])
def test_the_panel_begins_with_the_numbers_of_the_scores(threshold):
    predictions = fabricate_predictions()
    scores = evaluate_predictions(predictions, threshold, num_resamples=20)
    panel = build_operating_point(predictions, scores, "a")
    assert panel.threshold == threshold
    assert panel.cells == scores["confusion"]
    for rate in panel.rates:
        metric = scores["metrics"][rate.name]
        known = [np.nan if end is None else end for end in metric.values()]
        shown = [np.nan if end is None else end for end in (rate.value, rate.low, rate.high)]
        np.testing.assert_allclose(shown, known, rtol=0, atol=1e-12, err_msg=rate.name)


def test_the_frozen_point_lies_on_its_curves():
    predictions = fabricate_predictions()
    panel = build_operating_point(predictions, None, "a")
    at = {rate.name: rate.value for rate in panel.rates}
    assert (panel.roc.x, panel.roc.y) == pytest.approx((1 - at["specificity"], at["recall"]))
    assert (panel.pr.x, panel.pr.y) == pytest.approx((at["recall"], at["precision"]))
    steps = np.array(re.findall(r"([\d.]+) ([\d.]+)", panel.roc.path), dtype=float)
    assert np.hypot(*(steps - (panel.roc.x, panel.roc.y)).T).min() < 0.01
    assert (np.diff(steps, axis=0) >= 0).all()


@pytest.mark.parametrize("label", [0, 1])
def test_a_split_of_one_class_has_a_panel_without_curves(tmp_path, label):
    run = fabricate_run(tmp_path, logs=False)
    predictions = fabricate_predictions(y_true=np.full(1500, label))
    predictions.save(run.predictions_path("valid"))
    write_json(run.metrics_path, evaluate_predictions(predictions, 0.5, num_resamples=20))
    html = render_report([run], run.report_path).read_text(encoding="utf-8")
    assert html.count("There is no curve of patches that are all of one class") == 2
    assert "no such patch" in html
    assert not re.search(r"\bnan\b|\bNone\b", re.sub(r"<script>.*", "", html, flags=re.DOTALL))


def test_heights_of_the_histogram_are_roots_so_that_few_are_seen_beside_many():
    labels = np.array([1] * 400 + [1] * 4 + [0] * 100)
    probs = np.array([0.99] * 400 + [0.01] * 4 + [0.01] * 100)
    picture = distribution(labels, probs)
    assert re.findall(r"V(-?[\d.]+)H", picture.tumour)[0] == "0.1000"
    assert re.findall(r"V(-?[\d.]+)H", picture.tumour)[-1] == "1.0000"
    assert re.findall(r"V(-?[\d.]+)H", picture.normal)[0] == "-0.5000"
    for count, height in picture.ticks:
        assert height == pytest.approx((count / 400) ** 0.5) and height <= 1


def test_a_probability_on_the_edge_of_a_bin_and_one_of_1_are_counted_once():
    picture = distribution(np.array([1, 1, 1]), np.array([0.0, 0.5, 1.0]))
    heights = np.array(re.findall(r"V([\d.]+)H", picture.tumour), dtype=float)
    assert len(heights) == 50 and (heights == 1).sum() == 3
