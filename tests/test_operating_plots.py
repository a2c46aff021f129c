from pathlib import Path

import numpy as np
import pytest
from fabricated_run import fabricate_predictions
from PIL import Image

from ml_core.evaluation.calibration import sigmoid
from ml_core.evaluation.operating_plots import (
    operating_figures,
    plot_calibration,
    plot_predictive_values,
    plot_threshold_sweep,
)
from ml_core.evaluation.threshold import ThresholdRule, choose_threshold
from ml_core.metrics import compute_metrics
from ml_core.page.figure_style import save_figure

TABLE = fabricate_predictions()
COST = choose_threshold(TABLE.labels, TABLE.y_prob, ThresholdRule("cost"), num_resamples=30)
FIGURES = operating_figures(TABLE.labels, sigmoid(3 * TABLE.logit), TABLE.y_prob, COST, 0.02)


def texts(figure) -> str:
    return "\n".join(text.get_text() for ax in figure.axes for text in ax.texts)


def test_every_figure_of_an_operating_point_is_drawn_and_saved(tmp_path: Path):
    assert set(FIGURES) == {"threshold_sweep", "calibration", "predictive_values", "cost"}
    for name, figure in FIGURES.items():
        save_figure(figure, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels[0, 0] == 255).all()
        assert 0.01 < (pixels < 200).any(axis=2).mean() < 0.6, name


@pytest.mark.parametrize("at", [0.0, 0.001, 0.5, 0.97, 1.0])
def test_nothing_is_cut_off_at_the_edge_wherever_the_marks_are(at):
    fixed = ThresholdRule("fixed", value=at)
    chosen = choose_threshold(TABLE.labels, TABLE.y_prob, fixed, num_resamples=5)
    prevalence = min(max(at, 0.0002), 0.94)
    figures = operating_figures(TABLE.labels, TABLE.y_prob, TABLE.y_prob, chosen, prevalence)
    for name, figure in {**figures, **FIGURES}.items():
        box = figure.get_tightbbox()  # inches
        width, height = figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, (name, at)


def test_the_sweep_shows_the_metrics_at_each_threshold_and_both_marks():
    figure = FIGURES["threshold_sweep"]
    assert texts(figure).split("\n") == ["0.5", f"chosen {COST.value:.3g}"]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    at_half = compute_metrics(TABLE.labels, TABLE.y_prob, 0.5)
    for label, metric in (("recall", "recall"), ("precision", "precision"), ("F2", "f2")):
        x, y = lines[label].get_data()
        assert y[x == 0.5] == at_half[metric]


def test_a_threshold_of_one_half_is_marked_once():
    half = choose_threshold(TABLE.labels, TABLE.y_prob, ThresholdRule("fixed"), num_resamples=5)
    figure = plot_threshold_sweep(TABLE.labels, TABLE.y_prob, half)
    assert texts(figure) == "chosen 0.5"


def test_cost_is_shown_only_where_costs_are_the_rule_and_beside_constant_answers():
    share = TABLE.labels.mean()
    assert f"calling none {10 * share:.3g}" in texts(FIGURES["cost"])
    assert f"calling all {1 - share:.3g}" in texts(FIGURES["cost"])
    chosen = choose_threshold(TABLE.labels, TABLE.y_prob, ThresholdRule("youden"), 5)
    other = operating_figures(TABLE.labels, TABLE.y_prob, TABLE.y_prob, chosen)
    assert set(other) == {"threshold_sweep", "calibration", "predictive_values"}


def test_calibration_names_both_errors_and_counts_all_patches_of_both():
    figure = plot_calibration(TABLE.labels, sigmoid(3 * TABLE.logit), TABLE.y_prob)
    shown, counts = figure.axes
    before, after = (text.get_text() for text in shown.get_legend().get_texts())
    assert before.startswith("before, ECE 0.0") and after.startswith("after, ECE 0.0")
    assert float(before[-5:]) > float(after[-5:])
    for stairs in counts.patches:
        assert stairs.get_data().values.sum() == len(TABLE)


def test_predictive_values_are_said_at_the_deployment_prevalence():
    figure = plot_predictive_values(
        {"value": 0.9, "low": 0.8, "high": 0.95}, {"value": 0.95, "low": 0.9, "high": 0.97}, 0.02
    )
    assert texts(figure) == "deployment 2.0 %\nPPV 26.9 %\nNPV 99.8 %"
    with pytest.raises(ValueError, match="nothing to tell apart"):
        plot_predictive_values(
            {"value": 0.9, "low": 0.8, "high": 1}, {"value": 0.9, "low": 0.9, "high": 0.9}, 1.0
        )


def test_rates_that_are_unknown_have_no_predictive_values():
    fixed = ThresholdRule("fixed")
    chosen = choose_threshold([0, 0, 0], [0.1, 0.2, 0.6], fixed, num_resamples=5)
    figures = operating_figures([0, 0, 0], [0.1, 0.2, 0.6], [0.1, 0.2, 0.6], chosen)
    assert set(figures) == {"threshold_sweep", "calibration"}
