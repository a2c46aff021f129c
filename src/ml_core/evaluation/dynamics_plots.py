"""Figures of how training went by step: several runs on one axis, and the layers of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ml_core.page.figure_style import INK, MUTED, PAPER, SERIES, house_figure

Floats = npt.NDArray[np.float64]

WIDE = (9.4, 3.0)
MAX_BINS = 200  # points of a line; more cannot be told apart at this width
LOG_FROM = 20.0  # highest over lowest from which an axis is logarithmic


def plot_by_step(
    runs: Mapping[str, tuple[Floats, Floats]],
    label: str,
    spikes: Mapping[str, tuple[Floats, Floats]] | None = None,
    *,
    may_be_log: bool = True,
) -> Figure:
    """Plot a value over the step for each run, by name: (steps, values), both (S,).

    A long run is drawn as the median of neighbouring steps, and where it is alone with their range.
    `spikes` are (steps, values) by run, drawn as triangles.
    """
    with house_figure(WIDE, left=0.08, right=0.98, bottom=0.165, top=0.88) as figure:
        ax = figure.add_subplot()
        for number, (name, (steps, values)) in enumerate(runs.items()):
            color = SERIES[number % len(SERIES)]
            style = "-" if number < len(SERIES) else (0, (4, 1.5))
            middle, low, medians, high = _binned(steps, values)
            if len(runs) == 1 and len(steps) > MAX_BINS:
                ax.fill_between(middle, low, high, color=color, alpha=0.22, lw=0)
            ax.plot(middle, medians, color=color, ls=style, lw=1.3, label=name)
            if spikes and name in spikes:
                ax.plot(*spikes[name], ls="", marker="^", ms=5.5, mfc=color, mec=PAPER, mew=0.8)
        _scale(ax, [values for _, values in runs.values()], may_be_log)
        ax.set(xlabel="step", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(runs) > 1:
            ax.legend(
                frameon=False, fontsize=8, ncols=min(len(runs), 6), labelcolor=INK,
                loc="lower left", bbox_to_anchor=(0, 0.99), borderaxespad=0.2,
            )  # fmt: skip
    return figure


def plot_layers(steps: Floats, norms: Mapping[str, Floats]) -> Figure:
    """Plot the gradient norm of each layer by step as colours: the input's layer above.

    `norms` maps a layer to its norm at each of `steps` (S,); neighbouring steps are one column, by
    their median. Grey is a layer that got no gradient.
    """
    names = list(norms)
    columns = [part for part in np.array_split(np.arange(len(steps)), MAX_BINS) if len(part)]
    table = np.array(
        [[np.nanmedian(values[part]) for part in columns] for values in norms.values()]
    )
    table = np.where(table > 0, table, np.nan)  # (layers, columns)
    height = max(1.7, 0.165 * len(names) + 0.75)
    with house_figure(
        (WIDE[0], height), left=0.19, right=0.9, bottom=0.5 / height, top=1 - 0.12 / height
    ) as figure:
        ax = figure.add_subplot()
        ax.grid(False)
        ax.set_facecolor("#d0d0d0")
        finite = table[np.isfinite(table)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.1, 1.0)
        image = ax.imshow(
            table, aspect="auto", interpolation="nearest", cmap="viridis",
            norm=LogNorm(low, max(high, low * 1.01)),
            extent=(float(steps[0]) - 0.5, float(steps[-1]) + 0.5, len(names) - 0.5, -0.5),
        )  # fmt: skip
        ax.set_yticks(range(len(names)), names, fontsize=7.5)
        ax.tick_params(axis="y", length=0)
        ax.spines[:].set_visible(False)
        ax.set(xlabel="step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        bar = figure.colorbar(
            image, cax=figure.add_axes((0.915, 0.5 / height, 0.014, 1 - 0.62 / height))
        )
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.ax.tick_params(labelsize=7.5, color=MUTED)
    return figure


def _binned(steps: Floats, values: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return step, lowest, median and highest value of up to MAX_BINS groups of neighbours."""
    parts = np.array_split(np.arange(len(steps)), min(len(steps), MAX_BINS))
    parts = [part[np.isfinite(values[part])] for part in parts]
    parts = [part for part in parts if len(part)]
    return (
        np.array([np.median(steps[part]) for part in parts]),
        np.array([values[part].min() for part in parts]),
        np.array([np.median(values[part]) for part in parts]),
        np.array([values[part].max() for part in parts]),
    )


def _scale(ax: Axes, all_values: Sequence[Floats], may_be_log: bool) -> None:
    """Choose a logarithmic axis where the values span it, else one from zero."""
    values = np.concatenate([*all_values, np.zeros(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if may_be_log and len(values) and values.max() > LOG_FROM * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
