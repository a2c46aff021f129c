import json

import numpy as np
import pytest
import torch
from attribution_models import CENTRE, CORNER, SquareReader, reader_of
from tiny_pcam import make_patches

from ml_core.evaluation.attribution.visibility import VIEWS, measure_visibility
from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.predictions import sigmoid
from ml_core.evaluation.robustness.paired_scores import METRICS
from ml_core.metrics import compute_intervals, compute_metrics

LABELS = np.random.default_rng(0).integers(0, 2, 120)
FILL = (180.0, 140.4, 175.6)


def make_marked_patches(square):
    """Return patches that differ by class in one square only, and not without exception."""
    patches = make_patches(np.zeros(len(LABELS), int))
    noise = np.random.default_rng(1).normal(0, 12, len(LABELS))
    levels = 150 - 25 * LABELS + noise
    patches[:, square[0], square[1]] = levels[:, None, None, None].astype(np.uint8)
    return patches


def predictor(model):
    def predict(patches):
        with torch.no_grad():
            logits = model(torch.from_numpy(patches).permute(0, 3, 1, 2))
        return (logits[:, 1] - logits[:, 0]).double().numpy()

    return predict


def measure(square, index=None, labels=LABELS, predict=None, **options):
    index = np.arange(len(labels)) if index is None else index
    options = {"fill": FILL, "seed": 1, "num_resamples": 100, **options}
    return measure_visibility(
        predict or predictor(SquareReader(square)), reader_of(make_marked_patches(square)),
        index, labels[index], 0.5, **options,
    )  # fmt: skip


def auc(visibility, view):
    return visibility["views"][view]["metrics"]["roc_auc"]


def test_a_model_of_the_centre_alone_keeps_its_scores_when_only_the_centre_is_shown():
    visibility = measure(CENTRE)
    whole = visibility["views"]["whole"]["metrics"]
    assert 0.7 < whole["roc_auc"]["value"] < 1
    for view in ("centre_only", "centre_on_other_ring"):
        assert visibility["views"][view]["metrics"] == whole
        differences = visibility["views"][view]["difference"]
        assert all(score == {"value": 0, "low": 0, "high": 0} for score in differences.values())
    assert auc(visibility, "ring_only")["value"] == 0.5  # the same logit for every patch
    swapped = auc(visibility, "ring_on_other_centre")
    assert swapped["low"] < 0.5 < swapped["high"]
    assert visibility["findings"] == []


def test_a_model_of_a_corner_keeps_its_scores_without_the_centre_and_is_reported():
    visibility = measure(CORNER)
    whole = visibility["views"]["whole"]["metrics"]
    for view in ("ring_only", "ring_on_other_centre"):
        assert visibility["views"][view]["metrics"] == whole
    assert auc(visibility, "centre_only")["value"] == 0.5
    follows, tells = visibility["findings"]
    assert (follows["id"], follows["severity"]) == ("follows-the-ring", "warning")
    assert f"{whole['roc_auc']['value']:.3f}" in follows["message"]
    assert (tells["id"], tells["severity"]) == ("ring-tells-the-label", "info")


def test_the_loss_from_a_hidden_part_is_paired_and_has_an_interval():
    difference = measure(CORNER)["views"]["centre_only"]["difference"]["roc_auc"]
    whole = auc(measure(CORNER), "whole")["value"]
    assert difference["value"] == pytest.approx(0.5 - whole)
    assert difference["low"] < difference["value"] < difference["high"] < 0


def test_each_view_shows_what_it_says():
    shown = []

    def look(patches):
        shown.append(patches.copy())
        return np.linspace(-1, 1, len(patches))

    measure(CENTRE, predict=look)
    whole, centre_only, ring_only, on_ring, on_centre = shown
    inside = np.zeros((96, 96), bool)
    inside[32:64, 32:64] = True
    fill = np.array([180, 140, 176])  # rounded
    assert (centre_only[:, inside] == whole[:, inside]).all()
    assert (centre_only[:, ~inside] == fill).all()
    assert (ring_only[:, inside] == fill).all()
    assert (ring_only[:, ~inside] == whole[:, ~inside]).all()
    lenders = np.roll(np.arange(len(LABELS)), 1)
    assert (on_ring[:, inside] == whole[:, inside]).all()
    assert (on_ring[:, ~inside] == whole[lenders][:, ~inside]).all()
    assert (on_centre[:, inside] == whole[lenders][:, inside]).all()
    assert (on_centre[:, ~inside] == whole[:, ~inside]).all()
    assert not (on_ring == whole).all(axis=(1, 2, 3)).any()  # nobody borrows from itself


def test_who_lends_to_whom_has_nothing_to_do_with_the_order_of_the_patches():
    straight = measure(CORNER)
    shuffled = measure(CORNER, np.random.default_rng(5).permutation(len(LABELS)))
    assert json.dumps(straight) == json.dumps(shuffled)
    other_seed = auc(measure(CORNER, seed=2), "centre_on_other_ring")
    assert other_seed != auc(straight, "centre_on_other_ring")


def test_a_lender_is_as_often_of_the_other_class_as_chance_has_it():
    borrowed = []
    measure(CENTRE, predict=lambda patches: borrowed.append(patches) or np.zeros(len(patches)))
    dark = [patches[:, 32:64, 32:64].mean(axis=(1, 2, 3)) for patches in (borrowed[0], borrowed[4])]
    own, others = dark
    assert sorted(own) == sorted(others)  # each lends once
    assert abs(np.corrcoef(own, others)[0, 1]) < 0.25


def test_large_samples_are_read_in_blocks_and_the_swap_goes_across_them():
    labels = np.arange(600) % 2
    patches = make_patches(labels)
    sizes, asked = [], []

    def read(rows):
        asked.append(rows)
        return patches[rows]

    def predict(seen):
        sizes.append(len(seen))
        return seen[:, 32:64, 32:64].mean(axis=(1, 2, 3)) / -10.0 + 12

    done = []
    visibility = measure_visibility(
        predict, read, np.arange(600), labels, 0.5,
        fill=FILL, seed=0, num_resamples=10, progress=done.append,
    )  # fmt: skip
    assert max(sizes) == 256 and sum(sizes) == 5 * 600
    assert done == [256, 256, 88]
    assert (np.concatenate(asked[1::2]) == np.roll(np.concatenate(asked[::2]), 1)).all()
    assert auc(visibility, "centre_on_other_ring")["value"] == 1


def test_scores_are_those_of_the_metrics_module_at_the_threshold():
    index = np.arange(len(LABELS))
    predict = predictor(SquareReader(CENTRE))
    probs = sigmoid(predict(make_marked_patches(CENTRE)))
    threshold = float(np.quantile(probs, 0.8))
    visibility = measure_visibility(
        predict, reader_of(make_marked_patches(CENTRE)), index, LABELS, threshold,
        fill=FILL, seed=1, num_resamples=100,
    )  # fmt: skip
    values = compute_metrics(LABELS, probs, threshold)
    intervals = compute_intervals(LABELS, probs, threshold, 100, 0.95, 1)
    whole = visibility["views"]["whole"]["metrics"]
    for name in METRICS:
        assert whole[name]["value"] == pytest.approx(values[name])
        assert whole[name]["low"] == pytest.approx(intervals[name].low)
        assert whole[name]["high"] == pytest.approx(intervals[name].high)
    # with the centre covered all patches have the logit of the fill
    fill = np.rint(FILL).mean() / 255
    covered = np.full(len(LABELS), sigmoid(np.array([10 * (0.5 - fill)])))
    lost = compute_metrics(LABELS, covered, threshold)["accuracy"] - values["accuracy"]
    ring_only = visibility["views"]["ring_only"]["difference"]
    assert ring_only["accuracy"]["value"] == pytest.approx(lost)
    assert lost != pytest.approx(
        compute_metrics(LABELS, covered)["accuracy"] - compute_metrics(LABELS, probs)["accuracy"]
    )
    assert list(visibility["views"]) == list(VIEWS)


def test_the_auc_of_a_view_is_of_raw_logits_where_probabilities_are_ties():
    """A sigmoid is 1 from a logit of 37 on, and isotonic calibration flat beyond its ends."""
    index = np.arange(len(LABELS))
    order = predictor(SquareReader(CENTRE))
    plain = measure(CENTRE, index)["views"]
    sure = measure(CENTRE, index, predict=lambda patches: 1000 + order(patches))["views"]
    flat = Calibration("isotonic", knots=((-9.0, 0.2), (-8.0, 0.7)))
    constant = measure(CENTRE, index, calibrate=flat.apply)["views"]
    for view in VIEWS:
        for kind in ("metrics", "difference"):
            for scores in (sure, constant):
                assert scores[view][kind]["roc_auc"] == plain[view][kind]["roc_auc"], view
    # all are called at 0.5, as calibrated probabilities say
    assert plain["whole"]["metrics"]["specificity"]["value"] > 0.3
    assert constant["whole"]["metrics"]["specificity"]["value"] == 0
    assert constant["whole"]["metrics"]["recall"]["value"] == 1


@pytest.mark.parametrize("label", [0, 1])
def test_patches_of_one_class_have_null_where_nothing_can_be_said(label):
    visibility = measure(CENTRE, np.flatnonzero(label == LABELS))
    metrics = visibility["views"]["centre_only"]["metrics"]
    assert metrics["roc_auc"] == {"value": None, "low": None, "high": None}
    assert metrics[("recall", "specificity")[label]]["value"] is None
    assert metrics["accuracy"]["value"] is not None
    assert visibility["findings"] == []
    json.dumps(visibility, allow_nan=False)


def test_what_cannot_be_swapped_or_scored_is_refused():
    with pytest.raises(ValueError, match="two are needed"):
        measure(CENTRE, np.array([3]))
    with pytest.raises(ValueError, match="more than once"):
        measure(CENTRE, np.array([3, 4, 3]))
    with pytest.raises(ValueError, match="2 of 120 logits of the view 'whole' are not finite"):
        measure(CENTRE, predict=lambda patches: np.r_[np.nan, np.inf, np.zeros(len(patches) - 2)])
