"""Figures of where a model looks and of what it answers when it sees a part.

Each takes what explain.json holds, not the classes that made it: a report is drawn without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ml_core.page.figure_style import (
    BLUE,
    FIGURE_SIZE,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    house_figure,
)
from ml_core.page.text import percent

METHOD_LABELS = {"grad_cam": "Grad-CAM", "hires_cam": "HiResCAM", "occlusion": "occlusion"}
VIEW_LABELS = {
    "whole": "whole patch",
    "centre_only": "centre alone",
    "centre_on_other_ring": "centre, another's ring",
    "ring_only": "ring alone",
    "ring_on_other_centre": "ring, another's centre",
}
_DASHED: Any = (0, (4, 3))
_MOST_TIMES_EVEN = 4.0  # the share of a cell, in even shares, that has the strongest colour


def plot_mean_maps(saliency: Mapping[str, Any]) -> Figure:
    """Plot the mean map of each method, as trained and with random weights, the centre framed.

    All panels have one scale: the colour is the share of a cell, in units of what it would have if
    the attribution were spread evenly. `saliency` is `Saliency.to_dict()`.
    """
    shown = _with_maps(saliency)
    size = (FIGURE_SIZE[0], 0.55 + 1.5 * len(shown))
    with house_figure(size, left=0.3, right=0.97, bottom=0.04, top=1 - 0.42 / size[1]) as figure:
        axes = figure.subplots(max(1, len(shown)), 2, squeeze=False, gridspec_kw={"hspace": 0.08})
        for row, (name, method) in zip(axes, shown.items(), strict=False):
            for ax, key in zip(row, ("mean_map", "mean_map_random"), strict=True):
                _draw_map(ax, method.get(key), saliency["centre"]["share_of_area"])
            row[0].set_ylabel(METHOD_LABELS.get(name, name), rotation=0, ha="right", va="center")
        for ax, title in zip(axes[0], ("trained", "random weights"), strict=True):
            ax.set_title(title, fontsize=9.5)
    return figure


def plot_share_in_centre(saliency: Mapping[str, Any]) -> Figure:
    """Plot which share of the attribution lies in the centre, trained and with random weights.

    Bars are intervals; the line is the centre's share of the area, where an even map has it.
    `saliency` is `Saliency.to_dict()`.
    """
    shown = _with_maps(saliency)
    area = saliency["centre"]["share_of_area"]
    with house_figure(FIGURE_SIZE, left=0.24, right=0.96, bottom=0.15, top=0.86) as figure:
        ax = figure.add_subplot()
        ax.axvline(area, color=MUTED, lw=0.9, ls=_DASHED, zorder=1)
        ax.annotate(
            f"area {percent(area)}", (area, 0), (3, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="bottom", color=MUTED, fontsize=8,
        )  # fmt: skip
        for key, label, color, shift in (
            ("share_in_centre", "trained", BLUE, -0.12),
            ("random_weights", "random weights", ORANGE, 0.12),
        ):
            scores = [method[key] for method in shown.values()]
            _draw_scores(ax, scores, np.arange(len(shown)) + shift, color, label)
        ax.set(xlabel="share of the attribution in the centre", ylim=(len(shown) - 0.4, -0.6))
        ax.set_xlim(0, 1)
        ax.set_yticks(range(len(shown)), [METHOD_LABELS.get(name, name) for name in shown])
        ax.tick_params(axis="y", length=0)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=8)
    return figure


def plot_visibility(visibility: Mapping[str, Any]) -> Figure:
    """Plot ROC-AUC by what of a patch is shown, with intervals; the line is chance.

    `visibility` is what `measure_visibility` returns. What shows the centre, whose label is asked
    for, is blue, what shows only its surroundings vermillion.
    """
    views = {name: visibility["views"][name] for name in VIEW_LABELS if name in visibility["views"]}
    with house_figure(FIGURE_SIZE, left=0.35, right=0.96, bottom=0.15, top=0.95) as figure:
        ax = figure.add_subplot()
        ax.axvline(0.5, color=MUTED, lw=0.9, ls=_DASHED, zorder=1)
        for place, (name, view) in enumerate(views.items()):
            color = VERMILLION if name.startswith("ring") else BLUE
            score = view["metrics"]["roc_auc"]
            _draw_scores(ax, [score], [place], color)
            if score["value"] is not None:
                ax.annotate(
                    f"{score['value']:.3f}", (score["value"], place), (0, 5), ha="center",
                    va="bottom", textcoords="offset points", fontsize=8,
                )  # fmt: skip
        lowest = min((_low(view["metrics"]["roc_auc"]) for view in views.values()), default=0.5)
        ax.set(xlabel="ROC-AUC", ylim=(len(views) - 0.4, -0.6), xlim=(min(0.45, lowest - 0.03), 1))
        ax.set_yticks(range(len(views)), [VIEW_LABELS[name] for name in views])
        ax.tick_params(axis="y", length=0)
    return figure


def _with_maps(saliency: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: method
        for name, method in saliency["methods"].items()
        if method.get("mean_map") is not None
    }


def _draw_map(ax: Axes, mean_map: Sequence[Sequence[float]] | None, share_of_area: float) -> None:
    ax.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
    ax.grid(False)
    ax.spines[:].set_visible(True)
    if mean_map is None:
        ax.text(0.5, 0.5, "none", ha="center", va="center", color=MUTED)
        return
    cells = np.array(mean_map)
    tall, wide = 1 / cells.shape[0], 1 / cells.shape[1]
    for (row, column), share in np.ndenumerate(cells):
        strength = min(1.0, share * cells.size / _MOST_TIMES_EVEN)
        corner = (column * wide, row * tall)
        ax.add_patch(Rectangle(corner, wide, tall, facecolor=BLUE, alpha=strength, lw=0))
    side = float(np.sqrt(share_of_area))
    frame = ((1 - side) / 2, (1 - side) / 2)
    ax.add_patch(Rectangle(frame, side, side, fill=False, edgecolor=INK, lw=1.1))


def _draw_scores(
    ax: Axes,
    scores: Sequence[Mapping[str, float | None]],
    places: npt.ArrayLike,
    color: str,
    label: str | None = None,
) -> None:
    """Draw {"value", "low", "high"} as dots with intervals beside the ticks of the y axis."""
    value, low, high = (
        np.array([np.nan if score[end] is None else score[end] for score in scores], np.float64)
        for end in ("value", "low", "high")
    )
    ax.hlines(places, low, high, color=color, lw=1.4)
    ax.plot(value, np.asarray(places), color=color, marker="o", ms=5, ls="", label=label)


def _low(score: Mapping[str, float | None]) -> float:
    return 0.5 if score["low"] is None else score["low"]
