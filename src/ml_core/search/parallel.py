"""The trials of a study as lines across all their parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ml_core.page.figure_style import BLUE, INK, MUTED, PAPER, VERMILLION, house_figure
from ml_core.search.axis import Axis, Tick
from ml_core.search.plots import NOT_ACTIVE, is_number, short, spread_places, value_limits
from ml_core.search.study_dir import Direction
from ml_core.search.trials import Trial

HEIGHT, NARROWEST, PER_AXIS = 3.9, 6.4, 1.35  # inches
LONGEST_TICK = 11  # letters beside an axis
LONGEST_NAME = 17  # letters of one line above it


def plot_parallel(
    trials: Sequence[Trial],
    best: Trial | None,
    axes: Sequence[Axis],
    direction: Direction,
    label: str,
) -> Figure:
    """Plot a line for each trial with a value through its parameters to that value at the right.

    The better a complete trial, the stronger its line; the best has a colour of its own, pruned
    ones are grey. A parameter that was not active is a dot below its axis.
    """
    width = max(NARROWEST, PER_AXIS * (len(axes) + 1))
    with house_figure((width, HEIGHT), left=0.06, right=0.93, bottom=0.1, top=0.86) as figure:
        ax = figure.add_subplot()
        drawn = [trial for trial in trials if is_number(trial.value)]
        value_axis = _value_axis(trials, direction, label)
        lines = _lines(drawn, axes, value_axis)
        ranks = _ranks(drawn, direction)
        faint = float(np.clip(14 / max(len(drawn), 1), 0.12, 0.4))  # grey, not black, where many
        for trial in sorted(drawn, key=lambda each: ranks.get(each.number, -1.0)):
            if trial is not best:
                _line(ax, lines[trial.number], ranks.get(trial.number), faint)
        if best is not None and best.number in lines:
            ax.plot(range(len(axes) + 1), lines[best.number], color=VERMILLION, lw=2.4, zorder=5)
        for place, axis in enumerate([*axes, value_axis]):
            _draw_axis(ax, place, axis, is_last=place == len(axes))
        ax.set(xlim=(-0.25, len(axes) + 0.2), ylim=(-0.17, 1.06))
        ax.axis("off")
        _legend(figure, drawn, best)
    return figure


def _lines(
    trials: Sequence[Trial], axes: Sequence[Axis], value_axis: Axis
) -> dict[int, list[float]]:
    """Return the heights of each trial's line, by its number."""
    by_axis = [spread_places(axis, trials, width=0.35) for axis in axes]
    lines = {}
    for trial in trials:
        end = float(np.clip(value_axis.place(trial.value), 0.0, 1.0))
        lines[trial.number] = [places[trial.number] for places in by_axis] + [end]
    return lines


def _value_axis(trials: Sequence[Trial], direction: Direction, label: str) -> Axis:
    low, high = value_limits(trials, direction)
    return Axis(label, (), low, high, digits=4)


def _ranks(trials: Sequence[Trial], direction: Direction) -> dict[int, float]:
    """Return 0 (worst) to 1 (best) for each complete trial."""
    sign = 1 if direction == "maximize" else -1
    ordered = sorted(
        (sign * trial.value, trial.number)
        for trial in trials
        if trial.state == "complete" and is_number(trial.value)
    )
    last = max(len(ordered) - 1, 1)
    return {number: place / last for place, (_, number) in enumerate(ordered)}


def _line(ax: Axes, heights: Sequence[float], rank: float | None, faint: float) -> None:
    """Draw one line; without a rank it is of a trial that did not end."""
    if rank is None:
        ax.plot(range(len(heights)), heights, color=MUTED, lw=0.7, alpha=faint, zorder=1)
    else:
        strength = 0.1 + 0.75 * rank**2
        ax.plot(range(len(heights)), heights, color=BLUE, lw=0.8 + 0.8 * rank, alpha=strength,
                zorder=2 + rank)  # fmt: skip
    idle = [(place, height) for place, height in enumerate(heights) if height < NOT_ACTIVE / 2]
    for place, height in idle:
        ax.plot(place, height, ".", color=MUTED, ms=3, zorder=1)


def _draw_axis(ax: Axes, place: int, axis: Axis, *, is_last: bool) -> None:
    ax.vlines(place, 0, 1, color=MUTED, lw=1, zorder=3.5)
    for tick in _readable(axis.ticks()):
        ax.plot([place, place + 0.02], [tick.place] * 2, color=MUTED, lw=1, zorder=3.5)
        ax.annotate(
            short(tick.label, LONGEST_TICK), (place + 0.02, tick.place), (3, 0),
            textcoords="offset points", fontsize=8, va="center", zorder=6,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )  # fmt: skip
    ax.annotate(
        _two_lines(axis.key) + (" (log)" if axis.log else ""), (place, 1.0), (0, 9), ha="center",
        textcoords="offset points", va="bottom", fontsize=8.5, linespacing=1.15,
        color=INK, fontweight="bold" if is_last else "normal",
    )  # fmt: skip


def _readable(ticks: Sequence[Tick]) -> Sequence[Tick]:
    """Return as many of the ticks, evenly chosen, as can be read one above the other."""
    most = 12
    if len(ticks) <= most:
        return ticks
    kept = np.linspace(0, len(ticks) - 1, most).round().astype(int)
    return [ticks[each] for each in kept]


def _two_lines(key: str) -> str:
    """Return "optimizer.lr" as two lines, each cut to what fits."""
    section, dot, name = key.rpartition(".")
    if not dot:
        return short(name, LONGEST_NAME)
    return f"{short(section, LONGEST_NAME)}.\n{short(name, LONGEST_NAME)}"


def _legend(figure: Figure, trials: Sequence[Trial], best: Trial | None) -> None:
    kinds = []
    if best is not None and is_number(best.value):
        said = f"best, trial {best.number}: {best.value:.4f}"
        kinds.append((said, Line2D([], [], color=VERMILLION, lw=2.4)))
    if any(trial.state == "complete" for trial in trials):
        kinds.append(("complete, the stronger the better", Line2D([], [], color=BLUE, lw=1.4)))
    if any(trial.state != "complete" for trial in trials):
        kinds.append(("pruned", Line2D([], [], color=MUTED, lw=1, alpha=0.6)))
    if kinds:
        figure.legend(
            [handle for _, handle in kinds], [name for name, _ in kinds], loc="lower center",
            ncols=len(kinds), frameon=False, fontsize=8.5, labelcolor=INK, borderaxespad=0.1,
        )  # fmt: skip
