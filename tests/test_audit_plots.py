import math

import matplotlib as mpl
import numpy as np
import pytest
from fabricated_audit import fabricate_audit
from PIL import Image

from ml_core.audit.page.columns import split_slices
from ml_core.audit.page.difference_plots import MARKERS, AucRow, plot_aucs, plot_effects
from ml_core.audit.page.distribution_plots import Panel, plot_distributions
from ml_core.audit.page.figures import build_figures
from ml_core.audit.page.label_plots import (
    LabelCounts,
    binomial_chances,
    plot_label_counts,
    plot_labels_along_file,
)
from ml_core.page.figure_style import BLUE, GREEN, ORANGE, save_figure

STYLES = {"a": (BLUE, "-"), "b": (GREEN, "--")}


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts if text.get_text()]


@pytest.fixture(scope="module")
def figures():
    made = fabricate_audit()
    where = split_slices(made.patches, made.audit["splits"])
    return {each.name: each for each in build_figures(made.audit, made.patches, where)}


def test_nothing_is_cut_off_at_the_edge_of_a_figure(figures):
    assert len(figures) == 9
    for name, each in figures.items():
        box = each.figure.get_tightbbox()  # inches
        width, height = each.figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, name


def test_a_figure_is_saved_on_white_with_something_on_it(figures, tmp_path):
    for name, each in figures.items():
        save_figure(each.figure, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGBA"))
        assert (pixels[..., 3] == 255).all(), "nothing shows through: readable on any ground"
        assert (pixels[0, 0] == 255).all()
        assert 0.01 < (pixels < 200).any(axis=2).mean() < 0.6, name


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    plot_label_counts({"train": LabelCounts(1, 2)})
    assert dict(mpl.rcParams) == before


def test_label_counts_say_the_share_of_the_labelled():
    said = texts(
        plot_label_counts(
            {
                "train": LabelCounts(30_000, 10_000, 40_000),
                "valid": LabelCounts(0, 0, 5),
                "test": LabelCounts(0, 0),
            }
        )
    )
    assert {"25.0 % tumour", "no labels", "no patches", "30,000", "40,000"} <= set(said)
    assert "10,000" not in said or said.count("10,000") == 1


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_chances_of_a_batch_are_binomial(share):
    chances = binomial_chances(64, share)
    number = np.arange(65)
    assert chances.sum() == pytest.approx(1)
    assert (chances * number).sum() == pytest.approx(64 * share)
    variance = (chances * (number - 64 * share) ** 2).sum()
    assert variance == pytest.approx(64 * share * (1 - share), abs=1e-9)


def test_sorted_labels_are_seen_along_the_file():
    labels = np.repeat([0, 1], 5000)
    shuffled = np.random.default_rng(0).permutation(labels)
    figure = plot_labels_along_file({"train": labels, "valid": shuffled})
    train, valid = (patch.get_data().values for patch in figure.axes[0].patches)
    assert (train == np.repeat([0.0, 1.0], 25)).all()
    assert np.abs(valid - 0.5).max() < 0.15


def test_unknown_labels_are_left_out_along_the_file():
    figure = plot_labels_along_file({"train": np.array([-1] * 50 + [1] * 50)})
    (line,) = figure.axes[0].patches
    assert line.get_data().values.tolist() == [1.0]
    assert not plot_labels_along_file({"train": np.full(9, -1)}).axes[0].patches


def test_lines_of_a_distribution_are_shares_of_their_own_patches():
    rng = np.random.default_rng(0)
    panel = Panel("t", {"a": rng.random(10_000), "b": rng.random(1_000)}, (0, 1))
    lines = plot_distributions([panel], STYLES).axes[0].lines
    for line in lines:
        assert line.get_ydata().sum() == pytest.approx(1)
    assert len(lines[0].get_ydata()) == 20, "Rice: twice the cube root of the fewest"


def test_what_lies_beyond_the_axis_is_said():
    values = np.concatenate([np.random.default_rng(0).normal(10, 1, 9_000), np.full(1_000, 500.0)])
    figure = plot_distributions([Panel("t", {"a": values})], STYLES)
    low, high = figure.axes[0].get_xlim()
    assert 4 < low < 8 and 12 < high < 18, "the bulk can be seen"
    assert texts(figure) == ["→ 10.0 %"]


def test_a_spike_does_not_flatten_the_rest_and_is_said():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(120, 30, 6_000).clip(1, 254), np.zeros(4_000)])
    figure = plot_distributions([Panel("t", {"a": values}, (0, 255))], STYLES)
    assert texts(figure)[0].startswith("↑ 40.")
    line = figure.axes[0].lines[0].get_ydata()
    assert np.sort(line)[-2] > 0.3 * figure.axes[0].get_ylim()[1], "the other patches are seen"


def test_values_that_are_not_finite_are_left_out():
    values = np.array([np.nan, np.inf, 1.0, 2.0, 3.0])
    figure = plot_distributions(
        [Panel("t", {"a": values}), Panel("u", {"a": np.full(3, np.nan)}), Panel("v", {})], STYLES
    )
    assert figure.axes[0].lines[0].get_ydata().sum() == pytest.approx(1)
    assert texts(figure) == ["no values", "no values"]


def test_values_that_are_all_alike_are_one_spike():
    figure = plot_distributions([Panel("t", {"a": np.full(100, 7.0)})], STYLES)
    low, high = figure.axes[0].get_xlim()
    assert low < 7 < high
    assert figure.axes[0].lines[0].get_ydata().max() == 1


def test_effects_are_said_with_their_sign_and_tinted_by_size():
    figure = plot_effects({"x": {"p": 0.5, "q": -0.1}, "y": {"p": math.nan}})
    assert texts(figure) == ["+0.50", "−0.10", "–", "–"]
    large, small = figure.axes[0].patches
    assert large.get_alpha() > 2 * small.get_alpha()
    assert large.get_facecolor()[:3] != small.get_facecolor()[:3]


def test_aucs_are_ordered_and_splits_keep_their_colour():
    rows = [
        AucRow("low", "test", 0.52, 0.5, 0.54),
        AucRow("high", "test", 0.9, 0.88, 0.92),
        AucRow("high", "train", 0.95),
    ]
    figure = plot_aucs(rows, ["train", "valid", "test"])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["high", "low"]
    colors = {text.get_text() for text in figure.legends[0].get_texts()}
    assert colors == {"train", "test"}
    dots = [line for line in figure.axes[0].lines if line.get_marker() in MARKERS]
    assert {dot.get_color() for dot in dots} == {GREEN, ORANGE}
    assert [text for text in texts(figure) if "0" in text] == ["0.52", "0.90", "0.95"]


def test_an_auc_below_chance_is_on_the_figure():
    figure = plot_aucs([AucRow("odd", "", 0.1)])
    assert figure.axes[0].get_xlim()[0] < 0.1


def test_a_long_name_is_cut_short():
    figure = plot_effects({"x" * 80: {"y" * 80: 0.1}})
    box = figure.get_tightbbox()
    assert box.x0 >= 0
