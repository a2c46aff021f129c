import json
import math

import numpy as np
import pytest
from fabricated_run import fabricate_predictions
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from ml_core.errors import RunError
from ml_core.evaluation.calibration import (
    Calibration,
    calibration_scores,
    fit_calibration,
    reliability_bins,
    sigmoid,
)
from ml_core.evaluation.cross_fit import calibration_report, cross_fitted


def calibrated_logits(num_patches: int, seed: int = 0, spread: float = 2.0):
    """Return labels drawn with the probabilities that their logits say."""
    generator = np.random.default_rng(seed)
    logit = spread * generator.normal(size=num_patches)
    return (generator.random(num_patches) < sigmoid(logit)).astype(int), logit


def test_logits_that_say_the_truth_get_a_temperature_of_one():
    temperatures = [
        fit_calibration("temperature", *calibrated_logits(2000, seed)).temperature
        for seed in range(30)
    ]
    error = np.std(temperatures, ddof=1) / math.sqrt(30)
    assert np.mean(temperatures) == pytest.approx(1, abs=3 * error)
    assert error < 0.02


@pytest.mark.parametrize("temperature", [0.01, 0.5, 3.0, 400.0])
def test_a_known_temperature_is_recovered_whatever_the_scale_of_the_logits(temperature):
    labels, logit = calibrated_logits(5000)
    plain = fit_calibration("temperature", labels, logit)
    scaled = fit_calibration("temperature", labels, temperature * logit)
    assert scaled.temperature == pytest.approx(temperature * plain.temperature, rel=1e-9)
    assert scaled.note == ""
    assert scaled.apply(temperature * logit) == pytest.approx(plain.apply(logit), abs=1e-9)


def test_no_temperature_near_the_fitted_one_has_a_smaller_loss():
    labels, logit = calibrated_logits(500, seed=4)
    fitted = fit_calibration("temperature", labels, 2 * logit).temperature
    losses = [
        log_loss(labels, sigmoid(2 * logit / (fitted * factor)))
        for factor in (0.99, 0.9999, 1, 1.0001, 1.01)
    ]
    assert min(losses) == losses[2]


def test_temperature_turns_no_two_patches_round():
    table = fabricate_predictions()
    calibrated = fit_calibration("temperature", table.labels, table.logit).calibrate(table)
    assert (np.argsort(calibrated.logit) == np.argsort(table.logit)).all()
    before, after = (roc_auc_score(each.labels, each.y_prob) for each in (table, calibrated))
    assert before == after


def test_isotonic_may_tie_patches_but_never_turns_them_round():
    labels, logit = calibrated_logits(400)
    probs = fit_calibration("isotonic", labels, logit).apply(np.sort(logit))
    assert (np.diff(probs) >= 0).all()
    assert len(np.unique(probs)) < 400


def test_a_temperature_of_one_and_none_are_the_sigmoid_of_prediction():
    logit = np.append(np.linspace(-800, 800, 1001), [0.0, 1e-300])
    for calibration in (Calibration("none"), Calibration("temperature")):
        assert (calibration.apply(logit) == sigmoid(logit)).all()


def test_isotonic_is_scikit_learns_with_ends_that_the_patches_can_vouch_for():
    labels, logit = calibrated_logits(300, seed=2)
    calibration = fit_calibration("isotonic", labels, logit)
    curve = IsotonicRegression(out_of_bounds="clip").fit(logit, labels)
    ends = 1 / ((labels == 0).sum() + 2), 1 - 1 / (labels.sum() + 2)
    asked = np.linspace(-9, 9, 500)
    assert calibration.apply(asked) == pytest.approx(np.clip(curve.predict(asked), *ends))
    assert 0 < calibration.apply([-1e9])[0] < calibration.apply([1e9])[0] < 1
    assert "below 1,000" in calibration.note


def test_isotonic_reaches_what_no_temperature_can():
    labels, logit = calibrated_logits(4000, seed=5)
    bent = np.where(logit > 0, 4 * logit, logit / 4)
    nll = {
        kind: calibration_scores(labels, cross_fitted(kind, labels, bent))["nll"]
        for kind in ("none", "temperature", "isotonic")
    }
    assert nll["isotonic"] < nll["temperature"] - 0.01 < nll["none"] - 0.02


@pytest.mark.parametrize("kind", ["none", "temperature", "isotonic"])
def test_a_calibration_read_back_from_json_gives_the_same_bits(kind):
    labels, logit = calibrated_logits(1500, seed=3)
    calibration = fit_calibration(kind, labels, logit / 3)
    read = Calibration.from_dict({**json.loads(json.dumps(calibration.to_dict())), "before": {}})
    assert read == calibration
    assert (read.apply(logit) == calibration.apply(logit)).all()


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_a_calibrated_table_has_the_logits_of_its_probabilities(kind):
    table = fabricate_predictions()
    calibrated = fit_calibration(kind, table.labels, table.logit).calibrate(table)
    assert sigmoid(calibrated.logit) == pytest.approx(calibrated.y_prob, abs=1e-12)
    assert np.isfinite(calibrated.nll).all()
    assert (calibrated.index == table.index).all()
    assert Calibration().calibrate(table) is table


def test_classes_parted_without_an_error_stop_the_temperature_and_say_so():
    labels = np.repeat([0, 1], 50)
    logit = np.append(np.linspace(-3, -1, 50), np.linspace(1, 3, 50))
    calibration = fit_calibration("temperature", labels, logit)
    assert np.sqrt(np.mean((logit / calibration.temperature) ** 2)) == pytest.approx(10)
    assert "part the classes" in calibration.note


def test_a_model_that_is_worse_than_chance_is_flattened_and_told():
    labels, logit = calibrated_logits(500)
    calibration = fit_calibration("temperature", labels, -logit)
    assert calibration.apply(-logit) == pytest.approx(np.full(500, 0.5), abs=0.002)
    assert "flattened" in calibration.note


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_where_there_is_nothing_to_calibrate_the_reason_is_said(kind):
    with pytest.raises(RunError, match="all 3 are tumour"):
        fit_calibration(kind, [1, 1, 1], [0.1, 0.2, 0.3])
    with pytest.raises(RunError, match=r"all 4 patches have the logit 0\.5"):
        fit_calibration(kind, [0, 1, 0, 1], [0.5] * 4)
    with pytest.raises(RunError, match="one class has 1 of 4 patches"):
        cross_fitted(kind, [0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("logit", [[0.1, math.nan], [0.1, math.inf]])
def test_logits_that_are_no_numbers_are_refused(logit):
    with pytest.raises(ValueError, match=r"1 of 2 logits are NaN or infinite.* position 1"):
        fit_calibration("temperature", [0, 1], logit)


def test_misuse_is_refused_in_words():
    with pytest.raises(ValueError, match="unknown calibration 'platt'; allowed: temperature"):
        fit_calibration("platt", [0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="at least one patch"):
        fit_calibration("temperature", [], [])
    with pytest.raises(ValueError, match="1 of 2 logits are NaN"):
        Calibration().apply([0.1, math.nan])
    with pytest.raises(ValueError, match="temperature is -1"):
        Calibration("temperature", -1.0)
    for knots in ((), ((0.0, 0.5), (1.0, 0.4)), ((1.0, 0.2), (0.0, 0.4)), ((0.0, 0.0), (1.0, 0.5))):
        with pytest.raises(ValueError, match="knots"):
            Calibration("isotonic", knots=knots)


@pytest.mark.parametrize("change", [{"kind": "beta"}, {"temperature": 0}, {"knots": [[1]]}])
def test_a_damaged_calibration_is_refused_in_words(change):
    with pytest.raises(RunError, match="this is no calibration"):
        Calibration.from_dict({**Calibration().to_dict(), **change})
    with pytest.raises(RunError, match="KeyError: 'kind'"):
        Calibration.from_dict({})


def test_scores_equal_scikit_learn_and_numbers_worked_by_hand():
    labels, logit = calibrated_logits(600)
    probs = sigmoid(logit)
    scores = calibration_scores(labels, probs)
    assert scores["nll"] == pytest.approx(log_loss(labels, probs))
    assert scores["brier"] == pytest.approx(brier_score_loss(labels, probs))
    # Two bins of 15: 0.9 twice, one tumour: gap 0.4; 0.1 twice, none: gap 0.1.
    assert calibration_scores([1, 0, 0, 0], [0.9, 0.9, 0.1, 0.1])["ece"] == pytest.approx(0.25)


def test_ece_equals_its_definition_bin_by_bin():
    labels, logit = calibrated_logits(500)
    probs = sigmoid(2 * logit)
    ece = 0.0
    for k in range(15):
        inside = (probs >= k / 15) & (probs < (k + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs(labels[inside].mean() - probs[inside].mean())
    assert calibration_scores(labels, probs)["ece"] == pytest.approx(ece)


def test_bins_of_equal_mass_keep_ties_together_so_row_order_cannot_matter():
    labels, logit = calibrated_logits(400)
    probs = np.round(sigmoid(logit), 1)
    shuffled = np.random.default_rng(0).permutation(400)
    assert calibration_scores(labels[shuffled], probs[shuffled]) == pytest.approx(
        calibration_scores(labels, probs), abs=1e-12
    )
    distinct = sigmoid(logit)
    parts = np.array_split(np.argsort(distinct), 15)
    ece = sum(abs(labels[part].sum() - distinct[part].sum()) for part in parts) / 400
    assert calibration_scores(labels, distinct)["ece_equal_mass"] == pytest.approx(ece, abs=0.01)


def test_a_calibrated_model_has_about_the_ece_of_chance_and_not_zero():
    scores = []
    for seed in range(40):
        labels, logit = calibrated_logits(300, seed)
        scores.append(calibration_scores(labels, sigmoid(logit)))
    ece, by_chance = (np.mean([each[key] for each in scores]) for key in ("ece", "ece_by_chance"))
    assert by_chance > 0.04
    assert ece == pytest.approx(by_chance, rel=0.1)


def test_cross_fitting_scores_each_patch_by_a_fit_that_has_not_seen_it():
    labels, logit = calibrated_logits(300, seed=1)
    _, report = calibration_report("isotonic", labels, logit)
    in_sample, before, after = (
        report[key]["nll"] for key in ("after_in_sample", "before", "after")
    )
    assert in_sample < before
    assert in_sample < after
    changed = labels.copy()
    patch = int(np.argsort(logit)[150])  # in the middle: its label moves every curve it is in
    changed[patch] = 1 - changed[patch]
    before, after = (cross_fitted("temperature", each, logit) for each in (labels, changed))
    assert (before != after).any()


def test_folds_depend_on_the_patches_and_the_seed_and_not_on_row_order():
    labels, logit = calibrated_logits(200)
    shuffled = np.random.default_rng(0).permutation(200)
    probs = cross_fitted("isotonic", labels, logit)
    again = cross_fitted("isotonic", labels[shuffled], logit[shuffled])
    assert (again == probs[shuffled]).all()
    assert (cross_fitted("isotonic", labels, logit, seed=1) != probs).any()


def test_an_over_confident_model_is_better_after_than_before_on_every_score():
    table = fabricate_predictions()
    calibration, report = calibration_report("temperature", table.labels, 3 * table.logit)
    assert calibration.temperature > 2
    for score in ("ece", "ece_equal_mass", "brier", "nll"):
        assert report["after"][score] < report["before"][score]
    assert Calibration.from_dict(report) == calibration


def test_reliability_bins_count_every_patch_and_hold_the_share_in_their_interval():
    labels, logit = calibrated_logits(1000)
    bins = reliability_bins(labels, sigmoid(logit), num_bins=8)
    assert bins.num.sum() == 1000
    assert (bins.num * bins.share).sum() == pytest.approx(labels.sum())
    assert (bins.num * bins.mean_prob).sum() == pytest.approx(sigmoid(logit).sum())
    assert ((bins.low < bins.share) & (bins.share < bins.high)).all()
    assert len(reliability_bins([0, 1], [0.0, 1.0]).num) == 2, "empty bins are left out"
