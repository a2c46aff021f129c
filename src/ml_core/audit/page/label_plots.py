"""Figures of the labels: how many of each, how many in a batch, and where in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ml_core.audit.page.plot_style import (
    Floats,
    legend,
    percent_tick,
    short,
    split_lines,
)
from ml_core.page.figure_style import (
    BLUE,
    FIGURE_SIZE,
    MUTED,
    NORMAL_COLOR,
    ORANGE,
    TUMOUR_COLOR,
    house_figure,
)
from ml_core.page.text import percent

MAX_STRETCHES, PATCHES_PER_STRETCH = 50, 50  # fewer patches in each would show only noise


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


def plot_label_counts(counts: Mapping[str, LabelCounts]) -> Figure:
    """Plot the share of normal, tumour and unlabelled patches of each split as one bar."""
    with house_figure(FIGURE_SIZE, left=0.18, right=0.94, bottom=0.145, top=0.86) as figure:
        ax = figure.add_subplot()
        for row, count in enumerate(counts.values()):
            _label_bar(ax, row, count)
        ax.set_yticks(range(len(counts)), [short(name) for name in counts])
        ax.set(xlim=(0, 1), ylim=(max(len(counts), 1) - 0.4, -0.75), xlabel="share of patches")
        ax.xaxis.set_major_formatter(FuncFormatter(percent_tick))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        names = {"normal": NORMAL_COLOR, "tumour": TUMOUR_COLOR}
        if any(count.unknown for count in counts.values()):
            names["no label"] = MUTED
        handles = [Rectangle((0, 0), 1, 1, facecolor=color, alpha=0.4) for color in names.values()]
        legend(figure, handles, list(names))
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
        said = f"{percent(count.share_tumour)} tumour" if labelled else "no labels"
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
        legend(figure, handles, [name for name, _, _ in sampling])
        ax.set(xlabel=f"tumour patches in a batch of {batch_size}", ylabel="chance")
        ax.set(xlim=(-1, batch_size + 1), ylim=(0, None))
        ax.yaxis.set_major_formatter(FuncFormatter(percent_tick))
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
        legend(figure, handles, list(labels))
        ax.set(
            xlabel="place in the file", ylabel="share of tumour", xlim=(0, 1), ylim=(-0.02, 1.02)
        )
        ax.xaxis.set_major_formatter(FuncFormatter(percent_tick))
        ax.yaxis.set_major_formatter(FuncFormatter(percent_tick))
    return figure
