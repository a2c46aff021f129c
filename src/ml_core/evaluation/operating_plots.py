"""Figures of an operating point: what a threshold trades, what probabilities mean, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ml_core.evaluation.cuts import Cuts
from ml_core.evaluation.out_of_bag import Estimate, operating_metrics
from ml_core.evaluation.prior_shift import at_prevalence, check_prevalence
from ml_core.evaluation.reliability import calibration_scores, reliability_bins
from ml_core.evaluation.threshold import ChosenThreshold
from ml_core.metrics.arrays import Floats
from ml_core.page.figure_style import (
    BLUE,
    FIGURE_SIZE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    VERMILLION,
    house_figure,
)
from ml_core.page.text import percent

MARGINS = {"left": 0.155, "right": 0.965, "bottom": 0.145, "top": 0.86}  # a legend on top
_SWEPT = {"recall": BLUE, "specificity": GREEN, "precision": ORANGE, "f2": PURPLE}
_NAMES = {"f2": "F2"}
_DASHED: Any = (0, (4, 3))
_GRID = np.linspace(0, 1, 501)


def operating_figures(
    y_true: npt.ArrayLike,
    raw_prob: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    chosen: ChosenThreshold,
    deployment_prevalence: float | None = None,
) -> dict[str, Figure]:
    """Return the figures of a champion's operating point by file name.

    `raw_prob` (N,) is as the model gave it, `y_prob` (N,) calibrated, which the threshold is for.
    Fitted on these very patches, it lies nearer to the diagonal than it will; `plot_calibration`
    takes cross-fitted probabilities as well.
    The cost curve is there where costs are the rule, predictive values where recall and
    specificity are known. Raises ValueError for arrays that are not labels and probabilities.
    """
    figures = {
        "threshold_sweep": plot_threshold_sweep(y_true, y_prob, chosen),
        "calibration": plot_calibration(y_true, raw_prob, y_prob),
    }
    recall, specificity = chosen.expected["recall"], chosen.expected["specificity"]
    if recall["value"] is not None and specificity["value"] is not None:
        figures["predictive_values"] = plot_predictive_values(
            recall, specificity, deployment_prevalence, chosen.positives / chosen.num_patches
        )
    if chosen.rule.kind == "cost":
        figures["cost"] = plot_cost(y_true, y_prob, chosen)
    return figures


def plot_threshold_sweep(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, chosen: ChosenThreshold
) -> Figure:
    """Plot recall, specificity, precision and F2 over the threshold, the chosen one and 0.5 marked.

    Dots and bars at the chosen one are what it will give on new patches, with the interval.
    """
    swept = _sweep(y_true, y_prob, chosen)
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        for name, color in _SWEPT.items():
            ax.plot(_GRID, swept[name], color=color, label=_NAMES.get(name, name))
            _mark(ax, chosen.value, chosen.expected[name], color)
        _mark_thresholds(ax, chosen)
        ax.set(xlabel="threshold on the probability of tumour", xlim=(-0.01, 1.01), ylim=(0, 1.02))
        _legend(ax)
    return figure


def plot_cost(y_true: npt.ArrayLike, y_prob: npt.ArrayLike, chosen: ChosenThreshold) -> Figure:
    """Plot the expected cost per patch over the threshold, with that of calling all and none."""
    costs = _sweep(y_true, y_prob, chosen)["cost"]
    rule = chosen.rule
    share = rule.prevalence or chosen.positives / chosen.num_patches
    constants = {
        "calling all": rule.cost_false_positive * (1 - share),
        "calling none": rule.cost_false_negative * share,
    }
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        ax.plot(_GRID, costs, color=VERMILLION)
        for name, cost in constants.items():
            ax.axhline(cost, color=MUTED, lw=0.9, ls=_DASHED, zorder=1)
            ax.annotate(
                f"{name} {cost:.3g}", (0.98, cost), (0, 2), textcoords="offset points",
                ha="right", va="bottom", color=MUTED, fontsize=8,
            )  # fmt: skip
        _mark(ax, chosen.value, chosen.expected["cost"], VERMILLION)
        top = 1.25 * max(*constants.values(), float(np.nanmax(costs)))
        ax.set(
            xlabel="threshold on the probability of tumour", ylabel="expected cost per patch",
            xlim=(-0.01, 1.01), ylim=(0, top),
        )  # fmt: skip
        _mark_thresholds(ax, chosen, y=0.93)
    return figure


def plot_calibration(
    y_true: npt.ArrayLike, before: npt.ArrayLike, after: npt.ArrayLike, num_bins: int = 10
) -> Figure:
    """Plot the share of tumours by probability before and after calibration, and how many patches.

    Bars are Wilson's 95 % intervals of a bin's share; a calibrated model lies on the diagonal.
    """
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        grid = figure.add_gridspec(2, 1, height_ratios=(3.2, 1), hspace=0.12)
        ax, counts = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
        ax.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=_DASHED)
        for name, probs, color, shift in (
            ("before", before, ORANGE, -0.006), ("after", after, BLUE, 0.006),
        ):  # fmt: skip
            bins = reliability_bins(y_true, probs, num_bins)
            label = f"{name}, ECE {calibration_scores(y_true, probs)['ece']:.3f}"
            x = bins.mean_prob + shift  # so that two bars at one place can both be seen
            ax.vlines(x, bins.low, bins.high, color=color, lw=1.2)
            ax.plot(x, bins.share, color=color, lw=1, marker="o", ms=4, label=label)
            num, edges = np.histogram(np.asarray(probs, dtype=np.float64), num_bins, (0, 1))
            counts.stairs(num, edges, color=color, lw=1.3)
        ax.set(ylabel="share of tumours", xlim=(-0.02, 1.02), ylim=(0, 1.02))
        ax.tick_params(labelbottom=False)
        counts.set(xlabel="probability of tumour", ylabel="patches", xlim=(-0.02, 1.02))
        counts.set_ylim(bottom=0)
        figure.align_ylabels()
        _legend(ax)
    return figure


def plot_predictive_values(
    recall: Mapping[str, float | None],
    specificity: Mapping[str, float | None],
    deployment_prevalence: float | None = None,
    data_prevalence: float | None = None,
) -> Figure:
    """Plot PPV and NPV with their intervals over the prevalence, from those of the two rates.

    Marked are the prevalence of the data and that of the deployment, with what holds there.
    """
    marked = [each for each in (deployment_prevalence, data_prevalence) if each is not None]
    for prevalence in marked:
        check_prevalence(prevalence)
    prevalences = np.geomspace(min([0.001, *(each / 2 for each in marked)]), 0.95, 121)
    values = [at_prevalence(recall, specificity, float(each)) for each in prevalences]
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        for key, color in (("ppv", VERMILLION), ("npv", BLUE)):
            middle, low, high = (_column(values, key, end) for end in ("value", "low", "high"))
            ax.fill_between(prevalences, low, high, color=color, alpha=0.2, lw=0)
            ax.plot(prevalences, middle, color=color, label=key.upper())
        ax.set(xlabel="prevalence of tumour", xlim=(prevalences[0], 0.95), ylim=(0, 1.02))
        _log_percent(ax)
        if data_prevalence is not None:
            _vertical(ax, data_prevalence, "these patches", MUTED, y=0.02)
        if deployment_prevalence is not None:
            here = at_prevalence(recall, specificity, deployment_prevalence)
            said = [f"deployment {percent(deployment_prevalence)}"]
            said += [f"{key.upper()} {percent(here[key]['value'])}" for key in ("ppv", "npv")]
            _vertical(ax, deployment_prevalence, "\n".join(said), INK, y=0.45)
            for key, color in (("ppv", VERMILLION), ("npv", BLUE)):
                _mark(ax, deployment_prevalence, here[key], color)
        _legend(ax)
    return figure


def _sweep(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, chosen: ChosenThreshold
) -> dict[str, Floats]:
    """Return the metrics at every threshold of the grid; steps are finer than a line is wide."""
    cuts = Cuts(y_true, y_prob)
    cut = np.array([cuts.cut_at(threshold) for threshold in _GRID])
    costs = chosen.rule if chosen.rule.kind == "cost" else None
    return operating_metrics(cuts.count().cells(cut), costs)


def _mark(ax: Axes, x: float, estimate: Estimate, color: str) -> None:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return
    ax.vlines(x, low, high, color=color, lw=2.6, zorder=3)
    ax.plot(x, value, marker="o", ms=6, mfc=color, mec=PAPER, mew=1.2, zorder=4)


def _mark_thresholds(ax: Axes, chosen: ChosenThreshold, y: float = 0.02) -> None:
    if abs(chosen.value - 0.5) > 0.002:
        _vertical(ax, 0.5, "0.5", MUTED, y)
    _vertical(ax, chosen.value, f"chosen {chosen.value:.3g}", INK, y)


def _vertical(ax: Axes, x: float, text: str, color: str, y: float) -> None:
    """Draw a line with its name at height `y` of the axes, on the side that has room."""
    ax.axvline(x, color=color, lw=0.9, ls=_DASHED, zorder=1)
    along = (ax.transData + ax.transAxes.inverted()).transform((x, 0.5))[0]
    to_left = along > 0.7
    ax.annotate(
        text, (x, y), (-4 if to_left else 4, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right" if to_left else "left", va="bottom",
        color=color, fontsize=8,
    )  # fmt: skip


def _legend(ax: Axes) -> None:
    ax.legend(
        frameon=False, fontsize=8, labelcolor=INK, ncols=4, loc="lower left",
        bbox_to_anchor=(-0.02, 1.0), handlelength=1.4, columnspacing=1.2, borderpad=0.2,
    )  # fmt: skip


def _log_percent(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def _column(rows: list[dict[str, Any]], key: str, end: str) -> Floats:
    values = [row[key][end] for row in rows]
    return np.array([np.nan if value is None else value for value in values])
