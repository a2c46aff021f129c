"""The properties that should not matter, beside the model, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ml_core.page.figure_style import (
    GREEN,
    INK,
    MUTED,
    NORMAL_COLOR,
    PURPLE,
    TUMOUR_COLOR,
    house_figure,
)

_DASHED = (0, (4, 3))
_APART = 0.17  # of a row, so that two bars of it can both be seen


def plot_shortcuts(content: Mapping[str, Any]) -> Figure:
    """Plot what `measure_shortcuts` returns: ROC-AUCs on the left, correlations on the right.

    Left, of each property: the ROC-AUC with which it predicts the label, and that of the model
    between patches alike in it; the band is the model on all patches. Right: how far the logit
    follows it within each class. Bars are intervals; what no model sees has no right side.
    """
    properties: Sequence[Mapping[str, Any]] = content["properties"]
    height = 1.05 + 0.42 * max(1, len(properties))
    margins = {"left": 0.2, "right": 0.985, "bottom": 0.5 / height, "top": 1 - 0.42 / height}
    with house_figure((6.6, height), **margins, wspace=0.1) as figure:
        areas, follows = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
        _plot_areas(areas, content["model_auc"], properties)
        _plot_correlations(follows, properties)
        names = [str(each["name"]).replace("-", " ") for each in properties]
        areas.set_yticks(range(len(names)), names, color=INK)
        areas.set_ylim(max(1, len(names)) - 0.5, -0.5)
        for ax in (areas, follows):
            ax.tick_params(axis="y", length=0)
            ax.grid(axis="y", visible=False)
            ax.legend(
                frameon=False, fontsize=8, labelcolor=INK, loc="lower left", ncols=3,
                bbox_to_anchor=(-0.02, 0.98), handlelength=1.2, columnspacing=1.0, borderpad=0,
            )  # fmt: skip
    return figure


def _plot_areas(
    ax: Axes, model: Mapping[str, Any], properties: Sequence[Mapping[str, Any]]
) -> None:
    ax.axvline(0.5, color=MUTED, lw=0.9, ls=_DASHED, zorder=1)
    if model["value"] is not None:
        ax.axvline(model["value"], color=GREEN, lw=1.3, label="model")
    if model["low"] is not None:
        ax.axvspan(model["low"], model["high"], color=GREEN, alpha=0.16, lw=0)
    alone = [each["auc"] for each in properties]
    alike = [each["auc_at_like_values"] for each in properties]
    _whiskers(ax, alike, -_APART, GREEN, "at like values")
    _whiskers(ax, alone, _APART, PURPLE, "property")
    ax.set(xlabel="ROC-AUC")


def _plot_correlations(ax: Axes, properties: Sequence[Mapping[str, Any]]) -> None:
    ax.axvline(0, color=MUTED, lw=0.9, ls=_DASHED, zorder=1)
    within = [each["within_class"] for each in properties]
    _whiskers(ax, [each["normal"] for each in within], -_APART, NORMAL_COLOR, "normal")
    _whiskers(ax, [each["tumour"] for each in within], _APART, TUMOUR_COLOR, "tumour")
    ax.set(xlabel="rank correlation with the logit", xlim=(-1.02, 1.02))


def _whiskers(
    ax: Axes, scores: Sequence[Mapping[str, Any]], shift: float, color: str, label: str
) -> None:
    """Draw each score with its interval in its own row; what is undefined is not there."""
    known = [(row + shift, score) for row, score in enumerate(scores) if score["value"] is not None]
    ax.plot(
        [score["value"] for _, score in known], [row for row, _ in known],
        "o", ms=4.5, color=color, label=label,
    )  # fmt: skip
    for row, score in known:
        if score["low"] is not None:
            ax.hlines(row, score["low"], score["high"], color=color, lw=1.3)
