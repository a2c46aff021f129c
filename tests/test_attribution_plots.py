import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from ml_core.evaluation.attribution.overlay import overlay
from ml_core.evaluation.attribution.plots import (
    plot_mean_maps,
    plot_share_in_centre,
    plot_visibility,
)
from ml_core.page.figure_style import BLUE, VERMILLION
from ml_core.page.svg import figure_to_svg

VERMILLION_LEVELS, BLUE_LEVELS = (
    np.rint(255 * np.array(to_rgba(color)[:3])) for color in (VERMILLION, BLUE)
)
PATCH = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
GREY = np.rint(PATCH @ [0.299, 0.587, 0.114]).astype(np.uint8)


def score(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def fabricate_saliency(**changes):
    even = np.full((6, 6), 1 / 36)
    method = {
        "share_in_centre": score(0.3, 0.25, 0.35),
        "random_weights": score(0.2, 0.1, 0.3),
        "mean_map": even.tolist(),
        "mean_map_random": even.tolist(),
    }
    methods = {"grad_cam": {"why_not": "no map"}, "hires_cam": method, "occlusion": dict(method)}
    return {"centre": {"share_of_area": 1 / 9}, "methods": methods, **changes}


def fabricate_visibility(**changes):
    names = ("whole", "centre_only", "ring_only", "centre_on_other_ring", "ring_on_other_centre")
    values = dict(zip(names, (0.93, 0.64, 0.84, 0.65, 0.88), strict=True))
    views = {
        name: {"metrics": {"roc_auc": score(value, value - 0.04, value + 0.03)}}
        for name, value in values.items()
    }
    return {"views": {**views, **changes}}


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_a_map_of_zeros_leaves_the_patch_in_grey():
    for nothing in (np.zeros((6, 6)), np.full((2, 2), np.nan)):
        picture = overlay(PATCH, nothing)
        assert picture.dtype == np.uint8
        assert (picture == GREY[..., None]).all()


def test_what_speaks_for_the_call_is_vermillion_and_what_speaks_against_it_blue():
    saliency = np.zeros((3, 3))
    saliency[0, 0], saliency[2, 2] = 5.0, -5.0
    picture = overlay(PATCH, saliency).astype(float)
    for corner, color in ((0, VERMILLION_LEVELS), (-1, BLUE_LEVELS)):
        grey = GREY[corner, corner]
        expected = 0.35 * (PATCH[corner, corner] @ [0.299, 0.587, 0.114]) + 0.65 * color
        assert picture[corner, corner] == pytest.approx(expected, abs=0.51)
        assert picture[corner, corner] != pytest.approx(grey)
    assert (picture[48, 48] == GREY[48, 48]).all()


def test_only_the_ratios_within_a_map_are_shown():
    saliency = np.random.default_rng(1).normal(size=(6, 6))
    assert (overlay(PATCH, saliency) == overlay(PATCH, 1e-9 * saliency)).all()
    assert (overlay(PATCH, saliency) != overlay(PATCH, -saliency)).any()


def test_rows_of_a_map_are_rows_of_the_patch():
    saliency = np.zeros((4, 2))
    saliency[0] = 1
    picture = overlay(np.full((40, 80, 3), 128, np.uint8), saliency)
    assert picture.shape == (40, 80, 3)
    assert (picture[:5] == picture[0, 0]).all()
    assert (picture[15:] == 128).all()


def test_mean_maps_have_one_panel_per_method_and_weights_and_one_scale():
    saliency = fabricate_saliency()
    middle = np.zeros((6, 6))
    middle[2:4, 2:4] = 1 / 4
    saliency["methods"]["occlusion"]["mean_map"] = middle.tolist()
    figure = plot_mean_maps(saliency)
    assert len(figure.axes) == 4
    assert "HiResCAM" in texts(figure) and "Grad-CAM" not in texts(figure)
    shades = [
        {round(cell.get_alpha(), 6) for cell in ax.findobj(Rectangle) if cell.get_alpha()}
        for ax in figure.axes
    ]
    assert shades == [{0.25}, {0.25}, {1.0}, {0.25}]  # an even map has a quarter of the colour


def test_a_map_that_random_weights_do_not_have_is_said_to_be_missing():
    saliency = fabricate_saliency()
    saliency["methods"]["occlusion"]["mean_map_random"] = None
    assert "none" in texts(plot_mean_maps(saliency))


def test_shares_are_drawn_at_their_values_beside_the_area():
    figure = plot_share_in_centre(fabricate_saliency())
    (ax,) = figure.axes
    dots = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert dots["trained"] == [0.3, 0.3]
    assert dots["random weights"] == [0.2, 0.2]
    assert "area 11.1 %" in texts(figure)


def test_every_view_is_drawn_at_its_roc_auc_with_the_number_beside_it():
    figure = plot_visibility(fabricate_visibility())
    (ax,) = figure.axes
    for value in ("0.930", "0.640", "0.840", "0.650", "0.880"):
        assert value in texts(figure)
    colors = [line.get_color() for line in ax.lines[1:]]
    assert colors == [BLUE] * 3 + [VERMILLION] * 2


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plot_visibility(fabricate_visibility(whole={"metrics": {"roc_auc": score(None)}})),
        lambda: plot_visibility({"views": {}}),
        lambda: plot_mean_maps(fabricate_saliency(methods={"occlusion": {"why_not": "x"}})),
        lambda: plot_share_in_centre(fabricate_saliency(methods={})),
    ],
)
def test_figures_of_what_is_not_known_are_drawn_without_it(figure):
    assert figure_to_svg(figure(), "f", "a figure").startswith("<svg")


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plot_mean_maps(fabricate_saliency()),
        lambda: plot_share_in_centre(fabricate_saliency()),
        lambda: plot_visibility(fabricate_visibility()),
    ],
)
def test_every_colour_of_a_figure_follows_the_theme_of_the_page(figure):
    svg = figure_to_svg(figure(), "f", "a figure")
    assert re.findall(r"(?:fill|stroke): (#\w+)", svg) == []


def test_figures_and_overlays_are_drawn_without_torch():
    code = (
        "import sys, ml_core.evaluation.attribution.plots, ml_core.evaluation.attribution.overlay;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
