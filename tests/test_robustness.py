"""Scores of a model on changed patches, from models whose weakness is known."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from tiny_pcam import make_patches

from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.predictions import sigmoid
from ml_core.evaluation.robustness.corruptions import CORRUPTIONS, corruptions_for
from ml_core.evaluation.robustness.measure import measure_robustness, num_predictions
from ml_core.evaluation.robustness.plots import plot_robustness
from ml_core.page.svg import figure_to_svg

BY_NAME = {each.name: each for each in CORRUPTIONS}
FEW = tuple(BY_NAME[name] for name in ("rotation", "flip", "brightness", "blur"))
LABELS = np.arange(90) % 2
ROWS = np.arange(90) * 3 + 1  # rows of the file that are asked for


def hard_patches():
    """Return patches whose tumours are a little darker in the centre: a model errs on some."""
    rng = np.random.default_rng(3)
    patches = make_patches(np.zeros(90, int)).astype(float)
    patches[:, 32:64, 32:64] -= rng.normal(20 + 25 * LABELS, 15)[:, None, None, None]
    return np.clip(patches, 0, 255).astype(np.uint8)


PATCHES = hard_patches()


def read(rows):
    return PATCHES[(rows - 1) // 3]


def sees_the_centre(patches):
    """Return logits of a model for which dark in the centre is tumour."""
    return (155 - patches[:, 32:64, 32:64].mean(axis=(1, 2, 3))) / 6


def sees_contrast(patches):
    """Return logits of one that compares the centre with the rest, whatever the light."""
    ring = patches[:, :32].mean(axis=(1, 2, 3))
    return 40 * (0.82 - patches[:, 32:64, 32:64].mean(axis=(1, 2, 3)) / ring)


def sees_the_top_of_the_centre(patches):
    return (155 - patches[:, 32:36, 32:36].mean(axis=(1, 2, 3))) / 6


def facts_of(patches):
    return pd.DataFrame({"brightness": patches.mean(axis=(1, 2, 3))})


def measure(predict=sees_the_centre, corruptions=FEW, train_range=None, index=ROWS, **changes):
    settings = {"facts_of": facts_of, "num_resamples": 60, "corruptions": corruptions} | changes
    labels = LABELS[(index - 1) // 3]
    if train_range is None:
        train_range = {"brightness": (130.0, 215.0)}
    return measure_robustness(
        predict, read, index, labels, 0.5, train_range=train_range, **settings
    )


def point_of(result, name, strength):
    curve = next(curve for curve in result.curves if curve.name == name)
    return next(point for point in curve.points if point.strength == strength)


@pytest.fixture(scope="module")
def result():
    return measure()


def test_each_point_has_the_scores_of_the_changed_patches(result):
    for name, strength in (("brightness", 0.9), ("blur", 2), ("rotation", 90)):
        prob = sigmoid(sees_the_centre(BY_NAME[name].apply(PATCHES, strength)))
        scores = point_of(result, name, strength).metrics
        assert scores["roc_auc"].value == pytest.approx(roc_auc_score(LABELS, prob))
        assert scores["recall"].value == recall_score(LABELS, prob >= 0.5)
        assert scores["specificity"].value == recall_score(1 - LABELS, prob < 0.5)
        assert scores["accuracy"].value == accuracy_score(LABELS, prob >= 0.5)
        for score in scores.values():
            assert score.low <= score.value <= score.high


def test_a_difference_is_from_the_same_patches_untouched_and_is_0_for_these(result):
    for curve in result.curves:
        untouched = curve.points[0]
        assert all(score == (0, 0, 0) for score in untouched.difference.values())
        assert untouched.calls_changed == 0
        for point in curve.points:
            for metric, score in point.difference.items():
                expected = point.metrics[metric].value - untouched.metrics[metric].value
                assert score.value == pytest.approx(expected, abs=1e-12)
                assert score.low <= score.value <= score.high


def test_the_share_of_calls_that_change_is_counted_patch_by_patch(result):
    before = sees_the_centre(PATCHES) >= 0
    after = sees_the_centre(BY_NAME["brightness"].apply(PATCHES, 1.1)) >= 0
    assert point_of(result, "brightness", 1.1).calls_changed == (before != after).mean() > 0.1


def test_a_model_of_one_square_is_blind_to_turning_and_falls_with_the_light(result):
    assert result.flat_ok is True
    assert result.worst_recall_in_train_range.curve.name == "brightness"
    assert result.worst_recall_in_train_range.difference.value < -0.3
    assert [finding.id for finding in result.findings] == ["recall-falls-within-train-range"]
    assert point_of(result, "brightness", 1.25).metrics["recall"].value < 0.1


def test_a_model_that_compares_keeps_its_scores_when_the_light_changes():
    comparing = measure(sees_contrast, (BY_NAME["brightness"],))
    for strength in (0.6, 0.75, 0.9):  # brighter ones are cut off at white
        point = point_of(comparing, "brightness", strength)
        assert abs(point.difference["recall"].value) < 0.05
        assert abs(point.difference["roc_auc"].value) < 0.01


def test_a_model_that_knows_what_is_up_is_found():
    turned = measure(sees_the_top_of_the_centre)
    assert turned.flat_ok is False
    finding = next(each for each in turned.findings if each.id == "orientation-matters")
    assert "rotation (180°)" in finding.message and "of the calls" in finding.message
    assert finding.severity == "warning"


def test_the_worst_is_the_deepest_fall_of_all_and_names_itself():
    rng = np.random.default_rng(0)

    def loses_the_blurred(patches):
        sharpness = np.abs(np.diff(patches.astype(float), axis=1)).mean(axis=(1, 2, 3))
        noise = rng.normal(size=len(patches)) * (sharpness < 10) * 20
        return sees_the_centre(patches) + noise

    fallen = measure(loses_the_blurred)
    deepest = min(
        (point.difference["roc_auc"].value, curve.name, point.label)
        for curve in fallen.curves
        for point in curve.points[1:]
    )
    assert (fallen.worst.difference.value, fallen.worst.curve.name, fallen.worst.point.label) == (
        deepest
    )
    said = fallen.to_dict()["worst"]
    assert said["name"] == "blur" and said["metric"] == "roc_auc"
    assert said["difference"]["value"] < -0.2


def test_where_nothing_falls_there_is_no_worst_and_that_is_not_undefined(result):
    falls = [p.difference["roc_auc"].value for curve in result.curves for p in curve.points[1:]]
    assert min(falls) == 0
    assert result.worst is None and result.worst_in_train_range is None
    written = result.to_dict()
    assert written["worst"] is None and written["flat_ok"] is True
    assert "robustness-undefined" not in [each["id"] for each in written["findings"]]


def test_what_only_gains_is_no_worst_either():
    def gains(patches):
        """Orders the patches by their labels once they are dark."""
        dark = patches.mean(axis=(1, 2, 3)) < 170
        return np.where(dark, 1000.0 * LABELS, 0) + sees_the_centre(patches)

    gained = measure(gains, (dataclasses.replace(BY_NAME["brightness"], strengths=(1, 0.75)),))
    assert point_of(gained, "brightness", 0.75).difference["roc_auc"].value > 0.05
    assert gained.worst is None and gained.worst_in_train_range is None


def test_patches_that_change_places_within_a_class_are_no_fall():
    """A mean of the same numbers in another order differs in its last bit."""
    brightness = (dataclasses.replace(BY_NAME["brightness"], strengths=(1, 0.9)),)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = rng.normal(LABELS, 1.0)
        swapped = logits.copy()
        for label in (0, 1):
            swapped[label == LABELS] = rng.permutation(logits[label == LABELS])
        answers = iter((logits, swapped))
        result = measure(lambda patches, answers=answers: next(answers), brightness)
        difference = point_of(result, "brightness", 0.9).difference["roc_auc"]
        assert difference.value == 0 and result.worst is None
        assert difference.low <= 0 <= difference.high


def sure_of_tumour(patches):
    """Return logits in the order of `sees_the_centre`, where every sigmoid is 1."""
    return 1000 + sees_the_centre(patches)


@pytest.mark.parametrize(
    ("predict", "calibrate"),
    [
        pytest.param(sure_of_tumour, sigmoid, id="saturated"),
        pytest.param(
            sees_the_top_of_the_centre,
            Calibration("isotonic", knots=((-0.5, 0.2), (0.5, 0.8))).apply,
            id="isotonic",
        ),
    ],
)
def test_the_auc_is_of_raw_logits_where_probabilities_are_ties(predict, calibrate):
    measured = measure(predict, calibrate=calibrate)
    for name, strength in (("brightness", 1), ("brightness", 0.9), ("rotation", 90), ("blur", 3)):
        logits = predict(BY_NAME[name].apply(PATCHES, strength))
        point = point_of(measured, name, strength)
        area = roc_auc_score(LABELS, logits)
        lost = area - roc_auc_score(LABELS, predict(PATCHES))
        assert point.metrics["roc_auc"].value == pytest.approx(area)
        assert point.metrics["roc_auc"].low < area < point.metrics["roc_auc"].high
        assert point.difference["roc_auc"].value == pytest.approx(lost, abs=1e-12)
        assert area != pytest.approx(roc_auc_score(LABELS, calibrate(logits)))


def test_calls_are_of_calibrated_probabilities_at_the_threshold():
    cold = Calibration("isotonic", knots=((-1.0, 0.1), (3.0, 0.9)))  # 0.5 at a logit of 1
    measured = measure(calibrate=cold.apply)
    before = sees_the_centre(PATCHES) >= 1
    for name, strength in (("brightness", 1), ("brightness", 0.9), ("blur", 2)):
        called = sees_the_centre(BY_NAME[name].apply(PATCHES, strength)) >= 1
        point = point_of(measured, name, strength)
        assert point.metrics["recall"].value == recall_score(LABELS, called)
        assert point.metrics["specificity"].value == recall_score(1 - LABELS, ~called)
        assert point.metrics["accuracy"].value == accuracy_score(LABELS, called)
        assert point.calls_changed == (called != before).mean()
        lost = recall_score(LABELS, called) - recall_score(LABELS, before)
        assert point.difference["recall"].value == pytest.approx(lost)


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        measure(lambda patches: np.full(len(patches), np.nan))


def test_patches_within_the_train_range_are_told_by_their_median_fact():
    result = measure(train_range={"brightness": (150.0, 200.0)})
    medians = {
        strength: np.median(facts_of(BY_NAME["brightness"].apply(PATCHES, strength))["brightness"])
        for strength in BY_NAME["brightness"].strengths
    }
    for strength, median in medians.items():
        point = point_of(result, "brightness", strength)
        assert point.fact_median == median
        assert point.in_train_range is bool(150 <= median <= 200)
        assert point.share_in_train_range == (
            facts_of(BY_NAME["brightness"].apply(PATCHES, strength))["brightness"]
            .between(150, 200)
            .mean()
        )
    assert {point_of(result, "brightness", s).in_train_range for s in medians} == {True, False}
    assert point_of(result, "rotation", 90).in_train_range is True  # orientation moves no fact


def test_a_fact_that_is_unknown_or_has_no_range_leaves_the_range_unknown(result):
    blurred = point_of(result, "blur", 1)  # `facts_of` gives no focus
    assert blurred.in_train_range is None and np.isnan(blurred.fact_median)
    assert measure(corruptions=(BY_NAME["blur"],)).worst_in_train_range is None
    no_range = point_of(measure(train_range={}), "brightness", 0.9)
    assert no_range.in_train_range is None
    assert no_range.fact_median > 0 and np.isnan(no_range.share_in_train_range)


@pytest.mark.parametrize("at", [0.0, 130.0])
def test_a_train_range_of_one_value_tells_nothing(at):
    written = measure(train_range={"brightness": (at, at)}).to_dict()["curves"][2]
    assert written["train_range"] == [at, at]
    for point in written["points"]:
        assert point["in_train_range"] is None and point["share_in_train_range"] is None
        assert point["fact_median"] > 0


def test_a_fact_that_a_change_does_not_move_does_not_say_that_train_holds_the_changed():
    """Most patches lack the stain: its amount is cut off at 0 however much there is of it."""

    def cut_off(patches):
        return pd.DataFrame({"brightness": np.maximum(patches.mean(axis=(1, 2, 3)) - 172, 0)})

    measured = measure(facts_of=cut_off, train_range={"brightness": (0.0, 40.0)})
    points = {point.strength: point for point in measured.curves[2].points}
    assert points[1].in_train_range is True  # untouched patches are what they are
    assert points[1.1].in_train_range is True and points[1.1].fact_median > points[1].fact_median
    blind = measure(
        facts_of=lambda patches: pd.DataFrame({"brightness": np.zeros(len(patches))}),
        train_range={"brightness": (-1.0, 30.0)},
    ).curves[2]
    assert [point.in_train_range for point in blind.points] == [True] + [None] * 6
    assert [np.isnan(point.share_in_train_range) for point in blind.points] == [False] + [True] * 6


def test_patches_that_are_not_square_are_turned_by_half_and_it_is_said():
    wide = PATCHES[:, 16:80]  # (90, 64, 96, 3)
    corruptions = corruptions_for(64, 96)
    told = []
    result = measure_robustness(
        lambda patches: (155 - patches[:, 16:48, 32:64].mean(axis=(1, 2, 3))) / 6,
        lambda rows: wide[(rows - 1) // 3], ROWS, LABELS, 0.5, facts_of=facts_of, train_range={},
        num_resamples=10, corruptions=corruptions, progress=told.append,
    )  # fmt: skip
    assert sum(told) == num_predictions(90, corruptions) == num_predictions(90) - 2 * 90
    turned = {curve.name: [point.label for point in curve.points] for curve in result.curves}
    assert turned["rotation"] == ["untouched", "180°"]
    assert turned["flip"] == ["untouched", "left-right", "up-down"]
    assert set(turned) == set(BY_NAME)
    written = result.to_dict()
    assert written["shape"] == [64, 96] and written["flat_ok"] is True
    finding = next(each for each in written["findings"] if each["id"] == "no-quarter-turns")
    assert finding["severity"] == "info" and "64 x 96 pixels are not square" in finding["message"]


def test_square_patches_are_turned_every_way_and_nothing_is_said_of_it(result):
    assert corruptions_for(48, 48) == CORRUPTIONS
    assert result.to_dict()["shape"] == [96, 96]
    assert "no-quarter-turns" not in [finding.id for finding in result.findings]


def test_a_fall_on_patches_like_those_of_train_is_a_warning_with_its_figures():
    def loses_dim(patches):
        dim = patches.mean(axis=(1, 2, 3)) < 165
        return np.where(dim, 0.0, sees_the_centre(patches))

    brightness = (BY_NAME["brightness"],)
    inside = measure(loses_dim, brightness, train_range={"brightness": (100.0, 250.0)})
    finding = next(f for f in inside.findings if f.id == "fragile-within-train-range")
    assert "brightness (×" in finding.message and "train 100 to 250" in finding.message
    assert inside.worst_in_train_range.point.in_train_range is True
    outside = measure(loses_dim, brightness, train_range={"brightness": (176.0, 188.0)})
    assert "fragile-within-train-range" not in [f.id for f in outside.findings]
    assert outside.worst.point.in_train_range is False
    assert outside.worst_in_train_range is None  # what falls is not like train


def test_patches_of_one_class_have_no_auc_and_no_worst_and_it_is_said():
    tumours = ROWS[LABELS == 1]
    one_class = measure(index=tumours)
    written = json.loads(json.dumps(one_class.to_dict(), allow_nan=False))
    assert written["worst"] is None and written["worst_in_train_range"] is None
    assert written["flat_ok"] is None
    assert [each["id"] for each in written["findings"]] == ["robustness-undefined"]
    point = written["curves"][2]["points"][1]
    assert point["metrics"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert point["metrics"]["specificity"]["value"] is None
    assert point["metrics"]["recall"]["value"] is not None


def test_patches_come_in_bounded_batches_whose_size_changes_nothing(result):
    seen = []

    def counted(patches):
        seen.append(len(patches))
        return sees_the_centre(patches)

    in_small_batches = measure(counted, batch_size=32)
    assert max(seen) == 32 and len(seen) > 3
    assert in_small_batches.to_dict() == result.to_dict()


def test_the_order_of_the_rows_changes_nothing(result):
    shuffled = measure(index=np.random.default_rng(1).permutation(ROWS))
    assert shuffled.to_dict() == result.to_dict()


def test_progress_is_told_of_every_patch_that_is_predicted():
    told = []
    measure(progress=told.append, batch_size=40)
    assert sum(told) == num_predictions(len(ROWS), FEW) == 90 * (1 + 3 + 2 + 6 + 5)


def test_what_is_written_holds_every_point_as_json(result):
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert written["n"] == 90 and written["metric"] == "roc_auc"
    assert [curve["name"] for curve in written["curves"]] == [each.name for each in FEW]
    for curve, corruption in zip(written["curves"], FEW, strict=True):
        assert [point["strength"] for point in curve["points"]] == list(corruption.strengths)
        assert curve["points"][0]["label"] == "untouched"
        assert curve["fact"] == corruption.fact and curve["expect"] == corruption.expect
    assert written["curves"][2]["train_range"] == [130, 215]
    assert written["curves"][0]["train_range"] is None


def drawn(result, metric="roc_auc"):
    curves = json.loads(json.dumps(result.to_dict(), allow_nan=False))["curves"]
    return plot_robustness(curves, metric)


def test_every_corruption_has_a_panel_that_shades_what_train_holds(result):
    figure = drawn(result)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [each.name for each in FEW]
    shaded = {ax.get_title(loc="left"): len(ax.patches) for ax in figure.axes}
    inside = [p for p in result.curves[2].points if p.in_train_range]
    assert shaded == {"rotation": 0, "flip": 0, "brightness": len(inside), "blur": 0}
    assert 0 < len(inside) < 7


def test_a_panel_goes_by_strength_and_says_where_the_untouched_patch_stands(result):
    ax = drawn(result).axes[2]
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks == ["0.6", "0.75", "0.9", "as is", "1.1", "1.25", "1.4"]
    line = next(line for line in ax.lines if len(line.get_xdata()) == 7)
    by_strength = sorted(result.curves[2].points, key=lambda point: point.strength)
    assert list(line.get_ydata()) == [point.metrics["roc_auc"].value for point in by_strength]


def test_the_deepest_fall_is_marked_once_and_where_nothing_falls_none_is(result):
    def marks(metric):
        axes = drawn(result, metric).axes
        return [ax.get_title(loc="left") for ax in axes for text in ax.texts if text.get_text()]

    assert marks("recall") == ["brightness"]
    falls = [p.difference["roc_auc"].value for curve in result.curves for p in curve.points]
    assert min(falls) == 0 and marks("roc_auc") == []


def test_nothing_is_cut_off_and_every_colour_is_one_of_the_pages(result):
    figure = drawn(result, "recall")
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    assert set(re.findall(r"#[0-9a-f]{6}", figure_to_svg(figure, "r", "curves"))) == set()


def test_undefined_scores_are_drawn_as_gaps():
    figure = drawn(measure(index=ROWS[LABELS == 1]))
    assert len(figure.axes) == len(FEW)
    assert not any(text.get_text() == "worst" for ax in figure.axes for text in ax.texts)


def test_the_figures_are_drawn_without_torch():
    code = (
        "import sys, ml_core.evaluation.robustness.plots, ml_core.evaluation.shortcuts, "
        "ml_core.evaluation.shortcut_plot; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_chance_alone_rarely_says_that_orientation_matters():
    """A model of the truth that wavers by itself on turned patches, as strides do."""
    rotation = (BY_NAME["rotation"], BY_NAME["flip"])
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = rng.normal(1.5 * (2 * LABELS - 1), 1.2)
        result = measure(
            lambda patches, rng=rng, truth=truth: truth + rng.normal(0, 0.05, len(patches)),
            rotation, num_resamples=10,
        )  # fmt: skip
        alarms += result.flat_ok is False
    assert alarms <= 2


def test_a_corruption_of_ones_own_is_measured_like_the_others():
    darker = dataclasses.replace(BY_NAME["brightness"], name="lamp", strengths=(1, 0.5))
    result = measure(corruptions=(darker,))
    assert [curve.name for curve in result.curves] == ["lamp"]
    assert result.flat_ok is None  # nothing was turned
