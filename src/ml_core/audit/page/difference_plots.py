"""Figures of what tells splits and classes apart: effects of each pair, AUC of each property."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ml_core.audit.page.plot_style import TALL, legend, short, split_lines
from ml_core.page.figure_style import BLUE, MUTED, VERMILLION, house_figure

LARGE_EFFECT = 0.474  # Cliff's delta that Romano et al. (2006) call large: the tint is full there
MAX_PROPERTIES = 10  # rows of dots that can be told apart
MARKERS = ("o", "s", "D")  # by order of the splits


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
        ax.set_yticks(range(len(effects)), [short(name) for name in effects], fontsize=8)
        ax.set_xticks(range(len(columns)), [short(name) for name in columns], fontsize=8)
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
        ax.set_yticks(range(len(names)), [short(name) for name in names], fontsize=8.5)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        if len(splits) > 1:
            handles = [
                Line2D([], [], color=styles[split][0], marker=markers[split], ls="", ms=5)
                for split in splits
            ]
            legend(figure, handles, [split or "all" for split in splits])
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
