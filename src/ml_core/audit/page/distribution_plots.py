"""Histograms of what was measured of each patch, by split or by class.

Nothing here draws an artist per patch: a figure of 300,000 patches is a few hundred points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ml_core.audit.page.plot_style import TALL, Floats, legend
from ml_core.page.figure_style import FIGURE_SIZE, MUTED, house_figure
from ml_core.page.text import percent

MIN_BINS, MAX_BINS = 16, 72
# What is drawn ends this many interquartile ranges beyond the quartiles (Tukey's far out, 1977):
# one odd patch, or all the black ones, would make a line of the rest. What is left out is said.
FENCE = 3.0
# A share beyond the fence that is worth saying.
WORTH_SAYING = 0.001
# A bin this many times as high as the third highest is a spike (blank patches): it is cut off at
# the top and its share written there, so that the other patches can be seen.
SPIKE = 2.5


@dataclass(frozen=True)
class Panel:
    """One set of axes: the values of each line by its name, and the range that is drawn.

    Without `limits` the range is worked out from the values.
    """

    title: str
    lines: Mapping[str, npt.NDArray[Any]]
    limits: tuple[float, float] | None = None


def plot_distributions(
    panels: Sequence[Panel], styles: Mapping[str, tuple[str, Any]], xlabel: str = ""
) -> Figure:
    """Plot histograms, one panel below the other; `styles` is (colour, dashes) of each line.

    Each line is the share of its own patches in each bin, so that splits and classes of different
    size can be compared. Values that are not finite are left out; the share of those beyond what
    is drawn is written at that side.
    """
    size = TALL if len(panels) > 1 else FIGURE_SIZE
    with house_figure(size, left=0.08, right=0.965, bottom=0.1, top=0.86, hspace=0.5) as figure:
        figure.subplots_adjust(
            bottom=0.145 * FIGURE_SIZE[1] / size[1], top=1 - 0.14 * FIGURE_SIZE[1] / size[1]
        )
        axes = figure.subplots(max(len(panels), 1), 1, squeeze=False)[:, 0]
        for ax, panel in zip(axes, panels, strict=False):
            _draw_panel(ax, panel, styles)
        for ax in axes:
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
        axes[-1].set_xlabel(xlabel)
        used = [name for name in styles if any(name in panel.lines for panel in panels)]
        handles = [Line2D([], [], color=styles[name][0], ls=styles[name][1]) for name in used]
        legend(figure, handles, used)
    return figure


def _draw_panel(ax: Axes, panel: Panel, styles: Mapping[str, tuple[str, Any]]) -> None:
    ax.set_title(panel.title, loc="left", fontsize=8.5, color=MUTED, pad=4)
    finite = {name: _finite(values) for name, values in panel.lines.items()}
    finite = {name: values for name, values in finite.items() if len(values)}
    if not finite:
        ax.text(0.5, 0.4, "no values", transform=ax.transAxes, ha="center", color=MUTED)
        ax.set_xticks([])
        return
    low, high = panel.limits or drawn_range(list(finite.values()))
    edges = np.linspace(low, high, _num_bins(finite.values()) + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    shares = {name: np.histogram(values, edges)[0] / len(values) for name, values in finite.items()}
    top = max(map(_height_to_see, shares.values())) or 1.0
    for name, share in shares.items():
        color, dashes = styles[name]
        ax.fill_between(middle, share, color=color, alpha=0.14, lw=0)
        ax.plot(middle, share, color=color, ls=dashes, lw=1.4)
    ax.set(xlim=(low, high), ylim=(0, top))
    said = []
    for name, values in finite.items():
        place = int(shares[name].argmax())
        if shares[name][place] > top:
            aside = place + 1 if middle[place] <= (low + high) / 2 else place - 1  # off its slope
            said.append((middle[aside], f"↑ {percent(shares[name][place])}", styles[name][0]))
        for beyond, arrow, end in ((values < low, "←", low), (values > high, "→", high)):
            if beyond.mean() > WORTH_SAYING:
                said.append((end, f"{arrow} {percent(beyond.mean())}", styles[name][0]))
    _write_beside(ax, said, (low + high) / 2)


def _write_beside(ax: Axes, said: Sequence[tuple[float, str, str]], centre: float) -> None:
    """Write notes at the top of a panel, those on one side below each other."""
    used = {"left": 0, "right": 0}
    for x, note, color in said:
        side = "right" if x > centre else "left"
        away = 4 if side == "left" else -4
        ax.annotate(
            note, (x, 1), (away, -1 - 9 * used[side]), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha=side, va="top", fontsize=7.5, color=color,
        )  # fmt: skip
        used[side] += 1


def _num_bins(lines: Iterable[Floats]) -> int:
    """Return twice the cube root of the fewest values of a line (Rice's rule), within bounds."""
    return int(np.clip(round(2 * min(map(len, lines)) ** (1 / 3)), MIN_BINS, MAX_BINS))


def _height_to_see(share: Floats) -> float:
    """Return how high the axis must be to show a line without its spikes."""
    third = float(np.partition(share, -3)[-3])
    tallest = float(share.max())
    return 1.08 * (third * SPIKE if tallest > third * SPIKE and third > 0 else tallest)


def drawn_range(lines: Sequence[Floats]) -> tuple[float, float]:
    """Return the range that holds every line but for what is far out of all of them."""
    ends = []
    for values in lines:
        first, third = np.quantile(values, (0.25, 0.75))
        reach = FENCE * (third - first)
        ends.append((max(values.min(), first - reach), min(values.max(), third + reach)))
    low, high = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
    if high > low:
        return low, high
    margin = max(abs(low), 1.0) * 0.05  # all alike: one spike in the middle
    return low - margin, high + margin


def _finite(values: npt.NDArray[Any]) -> Floats:
    as_floats = np.asarray(values, dtype=np.float64)
    return as_floats[np.isfinite(as_floats)]
