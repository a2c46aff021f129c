"""Matplotlib figures of a study, in the house style: what was tried, and what came of it.

Each function takes the trials as `load_trials` gives them and returns a Figure. Values of pruned
trials are of an earlier epoch than those of complete ones, so they never count as the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ml_core.page.figure_style import (
    BLUE,
    FIGURE_SIZE,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    house_figure,
)
from ml_core.search.axis import Axis, Tick
from ml_core.search.importance import Importances
from ml_core.search.study_dir import Direction
from ml_core.search.trials import Trial

Floats = npt.NDArray[np.float64]

MARGINS = {"left": 0.165, "right": 0.965, "bottom": 0.145, "top": 0.86}
# What lies this many interquartile ranges below the quartiles (Tukey's far out, 1977) is drawn at
# the edge: one diverged trial would make a line of all others.
FENCE = 3.0
LONGEST_NAME = 24  # letters that fit beside a bar
NOT_ACTIVE = -0.13  # where a value would be that a trial did not need, below the axis


def plot_history(
    trials: Sequence[Trial], best: Trial | None, direction: Direction, label: str
) -> Figure:
    """Plot the value of each trial by its number, and the best complete one so far.

    A pruned trial is hollow, at its last value; a failed one is a cross at the edge.
    """
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        low, high = value_limits(trials, direction)
        _best_so_far(ax, trials, direction)
        for trial in trials:
            _mark(ax, trial, float(trial.number), (low, high), best=False)
        if best is not None:
            _mark(ax, best, float(best.number), (low, high), best=True)
        ax.set(xlabel="trial", ylabel=label, ylim=_with_margin(low, high))
        last = max((trial.number for trial in trials), default=0)
        ax.set_xlim(-0.7 - 0.01 * last, last + 0.7 + 0.01 * last)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, trials)
    return figure


def plot_slice(
    trials: Sequence[Trial], best: Trial | None, axis: Axis, direction: Direction, label: str
) -> Figure:
    """Plot the value of each trial over one parameter; those where it was not active are apart."""
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        limits = value_limits(trials, direction)
        places = spread_places(axis, trials)
        for trial in trials:
            _mark(ax, trial, places[trial.number], limits, best=False)
        if best is not None:
            _mark(ax, best, places[best.number], limits, best=True)
        ticks = axis.ticks()
        labels = [short(tick.label, 12) for tick in ticks]
        if any(place == NOT_ACTIVE for place in places.values()):
            ax.axvline(NOT_ACTIVE / 2, color=MUTED, lw=0.6, ls=(0, (1, 2)))
            ticks, labels = [Tick(NOT_ACTIVE, ""), *ticks], ["not\nactive", *labels]
            figure.subplots_adjust(bottom=0.19)
            ax.set_xlim(NOT_ACTIVE - 0.06, 1.04)
        else:
            ax.set_xlim(-0.04, 1.04)
        ax.set_xticks([tick.place for tick in ticks], labels, fontsize=8.5)
        ax.set(xlabel=f"{short(axis.key, 40)}{' (log)' if axis.log else ''}", ylabel=label)
        ax.set_ylim(_with_margin(*limits))
        _legend(figure, trials)
    return figure


def plot_learning_curves(
    trials: Sequence[Trial], best: Trial | None, direction: Direction, label: str
) -> Figure:
    """Plot the value of every trial by epoch; where a trial was pruned is a cross."""
    with house_figure(FIGURE_SIZE, **MARGINS) as figure:
        ax = figure.add_subplot()
        limits = curve_limits(trials, direction)
        faint = float(np.clip(20 / max(len(trials), 1), 0.25, 0.7))
        for trial in sorted(trials, key=lambda each: each.state == "complete"):
            if not trial.reports or trial is best:
                continue
            pruned = trial.state != "complete"
            color, alpha = (MUTED, 0.8 * faint) if pruned else (BLUE, faint)
            epochs, values = _curve(trial)
            ax.plot(epochs, values, color=color, alpha=alpha, lw=0.9, zorder=2)
            if trial.state == "pruned":
                ax.plot(epochs[-1], np.clip(values[-1], *limits), "x", color=MUTED, ms=4, mew=1)
        if best is not None and best.reports:
            ax.plot(*_curve(best), color=VERMILLION, lw=2, marker="o", ms=3, zorder=4)
        ax.set(xlabel="epoch", ylabel=label, ylim=_with_margin(*limits))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        longest = max((len(trial.reports) for trial in trials), default=0)
        if longest <= 1:
            ax.set_xlim(0.5, 1.5)
        _curve_legend(figure, trials)
    return figure


def plot_importance(importances: Importances) -> Figure:
    """Plot the share of each parameter in reaching the best values, with its interval."""
    rows = importances.rows
    size = (FIGURE_SIZE[0], max(1.3, 0.75 + 0.34 * len(rows)))
    with house_figure(size, left=0.44, right=0.95, bottom=0.42 / size[1], top=0.97) as figure:
        ax = figure.add_subplot()
        for place, row in enumerate(rows):
            ax.barh(place, row.value, height=0.55, color=BLUE, alpha=0.4, lw=0)
            if math.isfinite(row.low) and math.isfinite(row.high):
                ax.hlines(place, row.low, row.high, color=BLUE, lw=1.6)
        names = [short_key(row.key, LONGEST_NAME) for row in rows]
        ax.set_yticks(range(len(rows)), names, fontsize=8.5)
        ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="share of importance")
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
    return figure


def value_limits(trials: Sequence[Trial], direction: Direction) -> tuple[float, float]:
    """Return the range of values to draw: all but those far out on the bad side."""
    values = [trial.value for trial in trials if is_number(trial.value)]
    return _limits(np.array(values), direction)


def curve_limits(trials: Sequence[Trial], direction: Direction) -> tuple[float, float]:
    """Return the range of values by epoch to draw, likewise."""
    values = [value for trial in trials for value in trial.reports.values()]
    return _limits(np.array([float(value) for value in values if is_number(value)]), direction)


def _limits(values: Floats, direction: Direction) -> tuple[float, float]:
    if len(values) == 0:
        return 0.0, 1.0
    first, third = np.quantile(values, (0.25, 0.75))
    reach = FENCE * (third - first)
    low, high = float(values.min()), float(values.max())
    if direction == "maximize":
        low = max(low, float(first - reach))
    else:
        high = min(high, float(third + reach))
    margin = 0.02 * max(abs(low), 1e-3)
    return (low, high) if high > low else (low - margin, high + margin)


def is_number(value: float | None) -> TypeGuard[float]:
    """Return whether there is a value, and a finite one."""
    return value is not None and math.isfinite(value)


def spread_places(axis: Axis, trials: Sequence[Trial], width: float = 0.5) -> dict[int, float]:
    """Return the place of each trial on `axis` by number, equal choices side by side.

    `width` is the part of a choice's room that they take. NOT_ACTIVE where it has no value.
    """
    places = {}
    together: dict[float, list[int]] = {}
    for trial in trials:
        known = axis.key in trial.params
        place = axis.place(trial.params[axis.key]) if known else math.nan
        places[trial.number] = place if math.isfinite(place) else NOT_ACTIVE
        together.setdefault(places[trial.number], []).append(trial.number)
    for place, numbers in together.items():
        if not axis.choices and place != NOT_ACTIVE:
            continue
        room = width / len(axis.choices) if place != NOT_ACTIVE else 0.05
        for rank, number in enumerate(numbers):
            if place != NOT_ACTIVE:
                places[number] += room * ((rank + 0.5) / len(numbers) - 0.5)
    return places


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """Return `name` cut to `longest` letters."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def short_key(key: str, longest: int) -> str:
    """Return a dotted key by its last parts, as many as fit."""
    return key if len(key) <= longest else "…" + key[-(longest - 1) :]


def _best_so_far(ax: Axes, trials: Sequence[Trial], direction: Direction) -> None:
    numbers, values, best = [], [], math.nan
    pick = max if direction == "maximize" else min
    for trial in trials:
        if trial.state == "complete" and is_number(trial.value):
            best = trial.value if math.isnan(best) else pick(best, trial.value)
        if not math.isnan(best):
            numbers.append(trial.number)
            values.append(best)
    ax.plot(numbers, values, color=BLUE, lw=1.4, drawstyle="steps-post")


def _mark(ax: Axes, trial: Trial, x: float, limits: tuple[float, float], *, best: bool) -> None:
    """Draw one trial; what lies beyond the limits is a triangle at the edge."""
    low, high = limits
    if trial.state in ("failed", "lost") or (
        trial.state != "running" and not is_number(trial.value)
    ):
        ax.plot(x, 0.0, "x", color=VERMILLION, ms=5, mew=1.4, clip_on=False,
                transform=ax.get_xaxis_transform(), zorder=3)  # fmt: skip
        return
    if not is_number(trial.value):
        return
    value = float(np.clip(trial.value, low, high))
    beyond = value != trial.value
    marker = ("v" if value == low else "^") if beyond else "o"
    if best:
        ax.plot(x, value, marker=marker, ms=8, mfc=VERMILLION, mec=PAPER, mew=1.5, zorder=5)
    elif trial.state == "complete":
        ax.plot(x, value, marker=marker, ms=4.5, mfc=BLUE, mec="none", alpha=0.7, zorder=3)
    else:
        ax.plot(x, value, marker=marker, ms=4, mfc="none", mec=MUTED, mew=0.9, zorder=2)


def _curve(trial: Trial) -> tuple[list[int], list[float]]:
    epochs = sorted(trial.reports)
    return epochs, [float(trial.reports[epoch]) for epoch in epochs]


def _with_margin(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _legend(figure: Figure, trials: Sequence[Trial]) -> None:
    states = {trial.state for trial in trials}
    kinds: list[tuple[str, Line2D]] = []
    if "complete" in states:
        kinds.append(("best", _dot("o", VERMILLION, VERMILLION, 7)))
        kinds.append(("complete", _dot("o", BLUE, BLUE, 5)))
    if "pruned" in states or "running" in states:
        names = [state for state in ("pruned", "running") if state in states]
        kinds.append((" or ".join(names), _dot("o", "none", MUTED, 5)))
    if states & {"failed", "lost"}:
        kinds.append(("failed", _dot("x", VERMILLION, VERMILLION, 5)))
    _draw_legend(figure, kinds)


def _curve_legend(figure: Figure, trials: Sequence[Trial]) -> None:
    states = {trial.state for trial in trials if trial.reports}
    kinds = []
    if "complete" in states:
        kinds.append(("best", Line2D([], [], color=VERMILLION, marker="o", ms=3)))
        kinds.append(("complete", Line2D([], [], color=BLUE, alpha=0.7, lw=1.2)))
    if "pruned" in states:
        kinds.append(("pruned", Line2D([], [], color=MUTED, marker="x", ms=4, lw=1.2)))
    _draw_legend(figure, kinds)


def _dot(marker: str, face: str, edge: str, size: float) -> Line2D:
    return Line2D([], [], ls="", marker=marker, mfc=face, mec=edge, ms=size)


def _draw_legend(figure: Figure, kinds: Sequence[tuple[str, Line2D]]) -> None:
    if kinds:
        figure.legend(
            [handle for _, handle in kinds], [name for name, _ in kinds], loc="upper center",
            ncols=len(kinds), frameon=False, fontsize=8.5, labelcolor=INK, handlelength=1.4,
            columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip
