"""The figure of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ml_core.page.figure_style import BLUE, GREEN, INK, MUTED, VERMILLION, house_figure

Floats = npt.NDArray[np.float64]

SIZE = (5.6, 3.4)
HIGHEST_SHOWN = 1.6  # times the first loss: a diverging end would flatten the fall


def plot_range_test(
    learning_rates: Floats, losses: Floats, smoothed: Floats, suggestion: Mapping[str, Any]
) -> Figure:
    """Plot loss over learning rate, both (S,), as measured and smoothed, with what it suggests.

    `suggestion` has the rates learning_rate, lowest and edge, None where there is none.
    """
    with house_figure(SIZE, left=0.12, right=0.96, bottom=0.16, top=0.84) as figure:
        ax = figure.add_subplot()
        ax.plot(learning_rates, losses, color=MUTED, lw=0.8, alpha=0.6)
        ax.plot(learning_rates, smoothed, color=BLUE)
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        finite = smoothed[np.isfinite(smoothed)]
        if len(finite):
            bottom = 0.95 * min(finite.min(), np.nanmin(losses))
            ax.set_ylim(bottom, HIGHEST_SHOWN * finite[0])
        marks = {
            "learning_rate": ("suggested", VERMILLION, "-"),
            "lowest": ("lowest loss", GREEN, (0, (4, 2))),
            "edge": ("edge", INK, (0, (1, 2))),
        }
        for key, (name, color, style) in marks.items():
            if (rate := suggestion.get(key)) is not None:
                ax.axvline(rate, color=color, ls=style, lw=1.2, label=f"{name} {rate:.1e}")
        if suggestion.get("learning_rate") is None:
            ax.set_title("no rate is suggested", color=VERMILLION, fontsize=9.5, loc="left")
        else:
            ax.legend(
                loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8,
                borderaxespad=0.2, handlelength=1.6, columnspacing=1.2,
            )  # fmt: skip
        ax.set(xlabel="learning rate", ylabel="training loss of a batch")
    return figure
