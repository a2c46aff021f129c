"""Matplotlib figures of a data set: its labels, its distributions, and how its splits differ.

In the style and the colours of the figures of a run, so that one page can hold both. Nothing here
draws an artist per patch: a figure of 300,000 patches is a few hundred points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ml_core.page.figure_style import (
    BLUE,
    FIGURE_SIZE,
    GREEN,
    INK,
    MUTED,
    NORMAL_COLOR,
    ORANGE,
    PURPLE,
    TUMOUR_COLOR,
    VERMILLION,
    house_figure,
)

Floats = npt.NDArray[np.float64]

TALL = (FIGURE_SIZE[0], 4.6)  # inches: three panels, or a name and a number in each row
MAX_STRETCHES, PATCHES_PER_STRETCH = 50, 50  # fewer patches in each would show only noise
MIN_BINS, MAX_BINS = 16, 72
# What is drawn ends this many interquartile ranges beyond the quartiles (Tukey's far out, 1977):
# one odd patch, or all the black ones, would make a line of the rest. What is left out is said.
FENCE = 3.0
# A share beyond the fence that is worth saying.
WORTH_SAYING = 0.001
# A bin this many times as high as the third highest is a spike (blank patches): it is cut off at
# the top and its share written there, so that the other patches can be seen.
SPIKE = 2.5
LARGE_EFFECT = 0.474  # Cliff's delta that Romano et al. (2006) call large: the tint is full there
MAX_PROPERTIES = 10  # rows of dots that can be told apart
LONGEST_NAME = 18  # letters that fit beside a row
MARKERS = ("o", "s", "D")  # by order of the splits

CLASS_LINES: dict[str, tuple[str, Any]] = {
    "normal": (NORMAL_COLOR, "-"),
    "tumour": (TUMOUR_COLOR, (0, (4, 1.5))),
}
# By order of the splits; dashes too, since colour alone does not tell lines apart for everybody.
SPLIT_LINES: tuple[tuple[str, Any], ...] = (
    (GREEN, "-"),
    (PURPLE, (0, (5, 1.5))),
    (ORANGE, (0, (1.6, 1.2))),
)


@dataclass(frozen=True)
class LabelCounts:
    """How many patches of a split have which label."""

    normal: int
    tumour: int
    unknown: int = 0

    @property
    def total(self) -> int:
        return self.normal + self.tumour + self.unknown

    @property
    def share_tumour(self) -> float:
        """Share of tumour among the labelled patches; NaN where none is labelled."""
        labelled = self.normal + self.tumour
        return self.tumour / labelled if labelled else math.nan


@dataclass(frozen=True)
class Panel:
    """One set of axes: the values of each line by its name, and the range that is drawn.

    Without `limits` the range is worked out from the values.
    """

    title: str
    lines: Mapping[str, npt.NDArray[Any]]
    limits: tuple[float, float] | None = None


def split_lines(splits: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return (colour, dashes) of each split."""
    return {split: SPLIT_LINES[i % len(SPLIT_LINES)] for i, split in enumerate(splits)}


def plot_label_counts(counts: Mapping[str, LabelCounts]) -> Figure:
    """Plot the share of normal, tumour and unlabelled patches of each split as one bar."""
    with house_figure(FIGURE_SIZE, left=0.18, right=0.94, bottom=0.145, top=0.86) as figure:
        ax = figure.add_subplot()
        for row, count in enumerate(counts.values()):
            _label_bar(ax, row, count)
        ax.set_yticks(range(len(counts)), [_short(name) for name in counts])
        ax.set(xlim=(0, 1), ylim=(max(len(counts), 1) - 0.4, -0.75), xlabel="share of patches")
        ax.xaxis.set_major_formatter(FuncFormatter(_percent_tick))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        names = {"normal": NORMAL_COLOR, "tumour": TUMOUR_COLOR}
        if any(count.unknown for count in counts.values()):
            names["no label"] = MUTED
        handles = [Rectangle((0, 0), 1, 1, facecolor=color, alpha=0.4) for color in names.values()]
        _legend(figure, handles, list(names))
    return figure


def _label_bar(ax: Axes, row: int, count: LabelCounts) -> None:
    left = 0.0
    parts = ((count.normal, NORMAL_COLOR), (count.tumour, TUMOUR_COLOR), (count.unknown, MUTED))
    for number, color in parts:
        share = number / count.total if count.total else 0.0
        ax.barh(row, share, left=left, height=0.56, color=color, alpha=0.4, lw=0)
        if share > 0.13:  # room for six digits
            ax.text(left + share / 2, row, f"{number:,}", ha="center", va="center")
        left += share
    if count.total:
        labelled = count.normal + count.tumour
        said = f"{_percent(count.share_tumour)} tumour" if labelled else "no labels"
    else:
        said = "no patches"
    ax.text(0, row - 0.33, said, va="bottom", fontsize=8, color=MUTED)


def plot_positives_per_batch(share_tumour: float, batch_size: int) -> Figure:
    """Plot how many tumour patches a batch holds, drawn as they come and drawn balanced.

    Both are binomial: as they come with the share of the file, balanced with one half.
    """
    number = np.arange(batch_size + 1)
    with house_figure(FIGURE_SIZE, left=0.18, right=0.94, bottom=0.145, top=0.86) as figure:
        ax = figure.add_subplot()
        sampling = (("as they come", share_tumour, BLUE), ("balanced", 0.5, ORANGE))
        for name, share, color in sampling:
            chance = binomial_chances(batch_size, share)
            edges = np.append(number, batch_size + 1) - 0.5
            ax.stairs(chance, edges, fill=True, color=color, alpha=0.3, lw=0)
            ls = "-" if name == "balanced" else (0, (4, 1.5))
            ax.stairs(chance, edges, color=color, lw=1.4, ls=ls)
        handles = [
            Line2D([], [], color=BLUE, ls=(0, (4, 1.5)), lw=1.6),
            Line2D([], [], color=ORANGE, lw=1.6),
        ]
        _legend(figure, handles, [name for name, _, _ in sampling])
        ax.set(xlabel=f"tumour patches in a batch of {batch_size}", ylabel="chance")
        ax.set(xlim=(-1, batch_size + 1), ylim=(0, None))
        ax.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def binomial_chances(trials: int, share: float) -> Floats:
    """Return the chance of 0..trials successes, shape (trials + 1,)."""
    number = np.arange(trials + 1, dtype=np.float64)
    if share <= 0 or share >= 1:
        certain: Floats = (number == (trials if share >= 1 else 0)).astype(np.float64)
        return certain
    log_gamma = np.array([math.lgamma(k + 1) for k in range(trials + 1)])
    ways = log_gamma[-1] - log_gamma - log_gamma[::-1]
    chances: Floats = np.exp(
        ways + number * math.log(share) + (trials - number) * math.log1p(-share)
    )
    return chances


def plot_labels_along_file(labels: Mapping[str, npt.NDArray[Any]]) -> Figure:
    """Plot the share of tumour in equal stretches of each split's file.

    `labels` are in file order; -1 (unknown) is left out.
    """
    with house_figure(FIGURE_SIZE, left=0.18, right=0.94, bottom=0.145, top=0.86) as figure:
        ax = figure.add_subplot()
        styles, handles = split_lines(list(labels)), []
        for split, values in labels.items():
            color, dashes = styles[split]
            handles.append(Line2D([], [], color=color, ls=dashes))
            known = values[values >= 0].astype(np.float64)
            if len(known) == 0:
                continue
            num = min(MAX_STRETCHES, max(1, len(known) // PATCHES_PER_STRETCH))
            stretches = np.array_split(known, num)
            share = np.array([part.mean() for part in stretches])
            ax.stairs(share, np.linspace(0, 1, len(share) + 1), baseline=None, color=color,
                      ls=dashes, lw=1.5)  # fmt: skip
        _legend(figure, handles, list(labels))
        ax.set(
            xlabel="place in the file", ylabel="share of tumour", xlim=(0, 1), ylim=(-0.02, 1.02)
        )
        ax.xaxis.set_major_formatter(FuncFormatter(_percent_tick))
        ax.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
    return figure


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
        _legend(figure, handles, used)
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
            said.append((middle[aside], f"↑ {_percent(shares[name][place])}", styles[name][0]))
        for beyond, arrow, end in ((values < low, "←", low), (values > high, "→", high)):
            if beyond.mean() > WORTH_SAYING:
                said.append((end, f"{arrow} {_percent(beyond.mean())}", styles[name][0]))
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


def plot_effects(effects: Mapping[str, Mapping[str, float]]) -> Figure:
    """Plot effects of -1..1: a row for each statistic, a cell for each pair of splits.

    The tint is the size, its colour and the sign the direction; what is not known is a dash.
    """
    columns = list(dict.fromkeys(pair for row in effects.values() for pair in row))
    with house_figure(TALL, left=0.36, right=0.985, bottom=0.03, top=0.92) as figure:
        ax = figure.add_subplot()
        for place, row in enumerate(effects.values()):
            for column, pair in enumerate(columns):
                _effect_cell(ax, place, column, row.get(pair, math.nan))
        ax.set(xlim=(-0.5, max(len(columns), 1) - 0.5), ylim=(max(len(effects), 1) - 0.5, -0.5))
        ax.set_yticks(range(len(effects)), [_short(name) for name in effects], fontsize=8)
        ax.set_xticks(range(len(columns)), [_short(name) for name in columns], fontsize=8)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return figure


def _effect_cell(ax: Axes, row: int, column: int, value: float) -> None:
    if not math.isfinite(value):
        ax.text(column, row, "–", ha="center", va="center", color=MUTED)
        return
    tint = min(abs(value) / LARGE_EFFECT, 1.0)
    color = VERMILLION if value > 0 else BLUE
    corner = (column - 0.48, row - 0.46)
    ax.add_patch(Rectangle(corner, 0.96, 0.92, facecolor=color, alpha=0.03 + 0.5 * tint, lw=0))
    said = f"{value:+.2f}".replace("-", "−")
    ax.text(column, row, said, ha="center", va="center", fontsize=8)


@dataclass(frozen=True)
class AucRow:
    """How well a property alone predicts the label of a split, with its interval if known."""

    name: str
    split: str
    auc: float
    low: float = math.nan
    high: float = math.nan


def plot_aucs(aucs: Sequence[AucRow], splits: Sequence[str] = ()) -> Figure:
    """Plot AUCs as dots with their intervals: a row for each property, in it a dot per split.

    `splits` are all there are, so that each keeps its colour; "" stands for all together.
    """
    order = {split: place for place, split in enumerate(splits)}
    held = {row.split for row in aucs}
    splits = sorted(held, key=lambda split: (order.get(split, len(order)), split))
    names = _largest_first(aucs)
    styles = split_lines([*order, *(split for split in splits if split not in order)])
    markers = {split: MARKERS[place % 3] for place, split in enumerate(styles)}
    with house_figure(TALL, left=0.36, right=0.955, bottom=0.1, top=0.9) as figure:
        ax = figure.add_subplot()
        ax.axvline(0.5, color=MUTED, lw=0.9, ls=(0, (4, 3)))
        ax.text(0.5, -0.66, " chance", color=MUTED, fontsize=8, va="center")
        for row in aucs:
            if row.name in names:
                away = (splits.index(row.split) - (len(splits) - 1) / 2) * 0.24
                place, color = names.index(row.name) + away, styles[row.split][0]
                _auc_dot(ax, row, place, color, markers[row.split], len(splits) == 1)
        ax.set(xlim=(min(0.45, min(row.auc for row in aucs) - 0.05), 1.01), xlabel="AUC")
        ax.set_ylim(max(len(names), 4) - 0.4, -0.9)
        ax.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8.5)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        if len(splits) > 1:
            handles = [
                Line2D([], [], color=styles[split][0], marker=markers[split], ls="", ms=5)
                for split in splits
            ]
            _legend(figure, handles, [split or "all" for split in splits])
    return figure


def _largest_first(aucs: Sequence[AucRow]) -> list[str]:
    largest: dict[str, float] = {}
    for row in aucs:
        largest[row.name] = max(row.auc, largest.get(row.name, 0.0))
    return sorted(largest, key=lambda name: -largest[name])[:MAX_PROPERTIES]


def _auc_dot(ax: Axes, row: AucRow, place: float, color: str, marker: str, is_alone: bool) -> None:
    if math.isfinite(row.low) and math.isfinite(row.high):
        ax.hlines(place, row.low, row.high, color=color, lw=4.5, alpha=0.35)
    ax.plot(row.auc, place, marker=marker, ms=5.5, color=color, ls="")
    side = -1 if row.auc > 0.8 else 1
    edge = row.low if side < 0 else row.high
    start = edge if math.isfinite(edge) else row.auc
    ax.annotate(
        f"{row.auc:.3f}" if is_alone else f"{row.auc:.2f}", (start, place), (7 * side, 0),
        textcoords="offset points", va="center", ha="left" if side > 0 else "right",
        fontsize=8.5 if is_alone else 6.5,
    )  # fmt: skip


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    figure.legend(
        handles, [_short(name) for name in names], loc="upper center", ncols=max(len(names), 1),
        frameon=False, fontsize=8.5, labelcolor=INK, handlelength=2.2, columnspacing=1.6,
        borderaxespad=0.2,
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percent_tick(share: float, _: int | None = None) -> str:
    return f"{100 * share:g} %"


def _finite(values: npt.NDArray[Any]) -> Floats:
    as_floats = np.asarray(values, dtype=np.float64)
    return as_floats[np.isfinite(as_floats)]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
