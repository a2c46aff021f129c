"""Figures of uncertainty.json: risk against coverage, and what the seeds' votes are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ml_core.metrics import wilson_interval
from ml_core.page.figure_style import (
    BLUE,
    FIGURE_SIZE,
    GREEN,
    MUTED,
    VERMILLION,
    house_figure,
)
from ml_core.page.text import count, decimal, percent

MARGINS = {"left": 0.175, "right": 0.945, "bottom": 0.145, "top": 0.86}  # a legend on top
_DASHED: Any = (0, (4, 3))
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g} %")


def plot_risk_coverage(uncertainty: Mapping[str, Any]) -> Figure:
    """Plot the error rate of the surest patches over their share, from uncertainty.json.

    With its band, what chance and an oracle that ranks the errors last would give, and the
    abstention where there is one.
    """
    curve = uncertainty["risk_coverage"]
    coverage, risk = curve["coverage"], curve["risk"]
    level = percent(uncertainty["level"], 0)
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        ax.fill_between(coverage, curve["low"], curve["high"], color=BLUE, alpha=0.18, lw=0)
        ax.plot(coverage, risk, color=BLUE, label=f"model, {level} band")
        ax.axhline(risk[-1], color=MUTED, lw=0.9, ls=_DASHED, label="chance")
        grid = np.linspace(0.005, 1, 400)
        oracle = np.maximum(0, grid - (1 - risk[-1])) / grid
        ax.plot(grid, oracle, color=GREEN, lw=1.1, label="best order")
        top = max(risk[-1], 0.01) * 1.35
        _mark_abstention(ax, uncertainty["abstention"])
        ax.set(
            xlabel="coverage: share of patches that are called", ylabel="error rate of the calls"
        )
        ax.set(xlim=(0, 1.01), ylim=(0, top))
        ax.xaxis.set_major_formatter(_PERCENT)
        ax.yaxis.set_major_formatter(_PERCENT)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        _legend_on_top(ax)
        ax.text(
            0.62, 0.93, _area(uncertainty["aurc"]), transform=ax.transAxes, ha="right", fontsize=8
        )
    return figure


def _area(score: Mapping[str, float | None]) -> str:
    ends = "" if score["low"] is None else f" ({decimal(score['low'])} to {decimal(score['high'])})"
    return f"area {decimal(score['value'])}{ends}"


def _mark_abstention(ax: Axes, abstention: Mapping[str, Any] | None) -> None:
    if abstention is None:
        return
    at = abstention["coverage"], abstention["risk"]["value"]
    ax.plot(*at, "o", color=VERMILLION, ms=6, zorder=5)
    ax.axhline(abstention["target_risk"], color=VERMILLION, lw=0.9, ls=_DASHED)
    ax.annotate(
        f"at most {percent(abstention['target_risk'])}",
        (0.02, abstention["target_risk"]), (0, 3), textcoords="offset points",
        color=VERMILLION, fontsize=8,
    )  # fmt: skip


def plot_seed_agreement(seeds: Mapping[str, Any], level: float = 0.95) -> Figure:
    """Plot this run's error rate by how many runs call tumour, from `seeds` of uncertainty.json."""
    votes = seeds["by_votes"]
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        known = [each for each in votes if each["n"]]
        at = np.array([each["votes"] for each in known])
        error = np.array([each["error"] for each in known])
        intervals = [
            wilson_interval(round(each["error"] * each["n"]), each["n"], level) for each in known
        ]
        reach = np.array([[e - i.low, i.high - e] for e, i in zip(error, intervals, strict=True)]).T
        ax.bar(at, error, width=0.62, color=BLUE, alpha=0.75, lw=0)
        ax.errorbar(at, error, yerr=reach.clip(min=0), fmt="none", ecolor=MUTED, capsize=3, lw=1)
        ax.set_xticks(
            [each["votes"] for each in votes],
            [f"{each['votes']}\n{count(each['n'])}" for each in votes],
        )
        ax.set(
            xlabel=f"how many of {seeds['num_runs']} runs call tumour; patches",
            ylabel="error rate of this run",
        )
        ax.set_ylim(0, min(1, 1.15 * max(each.high for each in intervals)))
        ax.yaxis.set_major_formatter(_PERCENT)
        ax.grid(False, axis="x")
        ax.set_title(
            f"all alike on {percent(seeds['all_agree'])} of patches", fontsize=9, loc="left"
        )
        figure.subplots_adjust(bottom=0.205)
    return figure


def _legend_on_top(ax: Axes) -> None:
    ax.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, frameon=False, fontsize=8,
        handlelength=1.4, columnspacing=1.1, borderaxespad=0.2,
    )  # fmt: skip
