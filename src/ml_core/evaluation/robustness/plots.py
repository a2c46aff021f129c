"""Curves of robustness as small multiples, from what explain.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.page.figure_style import BLUE, GREEN, MUTED, PAPER, VERMILLION, house_figure

Floats = npt.NDArray[np.float64]

NUM_COLUMNS = 3
_PANEL = (2.35, 1.75)  # inches
_DASHED = (0, (4, 3))
_SHADE: Any = {"color": GREEN, "alpha": 0.14, "lw": 0}


def plot_robustness(curves: Sequence[Mapping[str, Any]], metric: str = "roc_auc") -> Figure:
    """Plot `metric` over the strength of each corruption, each in a panel; bars are intervals.

    The dashed line is the score of untouched patches, the hollow dot where it stands among the
    strengths. Shaded are the strengths at which the median patch is within the train range; a
    corruption that moves no fact has none. The deepest fall of all is marked.
    """
    num_rows = max(1, -(-len(curves) // NUM_COLUMNS))
    width, height = NUM_COLUMNS * _PANEL[0] + 0.6, num_rows * _PANEL[1] + 0.65
    margins = {
        "left": 0.55 / width, "right": 1 - 0.08 / width, "top": 1 - 0.55 / height,
        "bottom": 0.5 / height, "hspace": 0.72, "wspace": 0.12,
    }  # fmt: skip
    lowest = _lowest(curves, metric)
    worst = _worst(curves, metric)
    with house_figure((width, height), **margins) as figure:
        grid = figure.add_gridspec(num_rows, NUM_COLUMNS)
        for number, curve in enumerate(curves):
            ax = figure.add_subplot(grid[number // NUM_COLUMNS, number % NUM_COLUMNS])
            _panel(ax, curve, metric, worst)
            ax.set_ylim(lowest, 1.01)
            if number % NUM_COLUMNS:
                ax.tick_params(labelleft=False)
            else:
                ax.set_ylabel(METRIC_LABELS.get(metric, metric))
        figure.legend(
            [Rectangle((0, 0), 1, 1, **_SHADE)], ["median patch within the range of train"],
            frameon=False, fontsize=8, loc="upper right", borderpad=0, borderaxespad=0.2,
        )  # fmt: skip
    return figure


def _panel(
    ax: Axes, curve: Mapping[str, Any], metric: str, worst: tuple[str, float] | None
) -> None:
    points = _from_mild(curve["points"])
    untouched = curve["points"][0]
    value, low, high = (_of(points, metric, key) for key in ("value", "low", "high"))
    at = np.arange(len(points))
    ax.axhline(_of([untouched], metric, "value")[0], color=MUTED, lw=0.9, ls=_DASHED, zorder=1)
    ax.vlines(at, low, high, color=BLUE, lw=1.2)
    ax.plot(at, value, color=BLUE, lw=1.3)
    for place, point in enumerate(points):
        if curve["fact"] is not None and point["in_train_range"]:
            ax.axvspan(place - 0.5, place + 0.5, **_SHADE)
        face = PAPER if point is untouched else BLUE
        ax.plot(place, value[place], "o", ms=4.5, color=BLUE, mfc=face)
        if worst == (curve["name"], point["strength"]):
            _mark_worst(ax, place, value[place], is_left=place < len(points) / 2)
    ax.set_title(curve["name"], loc="left", fontsize=9.5, pad=4)
    ax.set_xticks(at, [_tick(point, untouched, curve["unit"]) for point in points], fontsize=7.5)
    ax.set_xlim(-0.5, len(points) - 0.5)
    ax.set_xlabel(curve["unit"], fontsize=8, labelpad=2)
    ax.grid(axis="x", visible=False)


def _mark_worst(ax: Axes, place: float, value: float, is_left: bool) -> None:
    ax.plot(place, value, "o", ms=4.5, color=VERMILLION)
    ax.annotate(
        "worst", (place, value), (6 if is_left else -6, 0), textcoords="offset points",
        color=VERMILLION, fontsize=8, ha="left" if is_left else "right", va="center",
    )  # fmt: skip


def _from_mild(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the points by strength, so that a curve with one side begins untouched."""
    rising = sorted(points, key=lambda point: float(point["strength"]))
    return rising[::-1] if rising[-1] is points[0] else rising


def _tick(point: Mapping[str, Any], untouched: Mapping[str, Any], unit: str) -> str:
    if point is untouched:
        return "as is"
    return f"{point['strength']:g}".replace("-", "\u2212") if unit else str(point["label"])


def _of(points: Sequence[Mapping[str, Any]], metric: str, key: str) -> Floats:
    """Return "value", "low" or "high" of each point as numbers; null is NaN."""
    values = [point["metrics"][metric][key] for point in points]
    return np.array([np.nan if value is None else float(value) for value in values])


def _lowest(curves: Sequence[Mapping[str, Any]], metric: str) -> float:
    """Return where the axis of all panels begins: a little below the lowest interval."""
    ends = [end for curve in curves for end in _of(curve["points"], metric, "low")]
    return max(0.0, min((end for end in ends if np.isfinite(end)), default=0.0) - 0.03)


def _worst(curves: Sequence[Mapping[str, Any]], metric: str) -> tuple[str, float] | None:
    """Return the name and strength of the deepest fall; None where nothing falls."""
    falls = [
        (difference, str(curve["name"]), float(point["strength"]))
        for curve in curves
        for point in curve["points"][1:]
        if (difference := point["difference"][metric]["value"]) is not None and difference < 0
    ]
    return min(falls)[1:] if falls else None
