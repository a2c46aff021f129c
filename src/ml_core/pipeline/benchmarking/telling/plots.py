"""Figures of a benchmark: patches per second over batch sizes, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ml_core.page.figure_style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SERIES,
    SKY,
    VERMILLION,
    house_figure,
)
from ml_core.page.text import percent
from ml_core.pipeline.benchmarking.figures import Bound, Computing, Variant, Work
from ml_core.pipeline.benchmarking.telling.table import variant_in_words

WIDE = (7.6, 3.7)
BAR = (7.6, 1.5)
WORKS: tuple[Work, ...] = ("forward", "train step")
DASHES = (0, (2, 2))
MARKERS = "osD^"
MOST_SIZES = 7  # that can be written below half a figure

PART_COLORS: dict[Bound, str] = {
    "compute": BLUE,
    "transfer": PURPLE,
    "reading": GREEN,
    "decoding": ORANGE,
    "waiting": VERMILLION,
    "workers": SKY,
}
PART_NAMES: dict[Bound, str] = {
    "compute": "the step",
    "transfer": "copying to the device",
    "reading": "reading",
    "decoding": "decoding",
    "waiting": "waiting",
    "workers": "too many readers",
}


def plot_throughput(computing: Sequence[Computing], batch_size: int) -> Figure:
    """Plot patches per second over batch sizes, a line for each way to compute.

    Left forward, right the training step, each with the middle half of its pieces; the config's
    `batch_size` is marked. Both axes are logarithmic: a straight line that rises is a batch that
    takes the same time whatever it holds.
    """
    measured = [each for each in computing if each.at]
    variants = list(dict.fromkeys(each.variant for each in measured))
    sizes = sorted({at.batch_size for each in measured for at in each.at})
    with house_figure(WIDE, left=0.09, right=0.985, bottom=0.3, top=0.9, wspace=0.2) as figure:
        axes = figure.subplots(1, 2, sharex=True)
        for ax, work in zip(axes, WORKS, strict=True):
            for each in measured:
                if each.work == work:
                    _draw_line(ax, each, variants.index(each.variant))
            ax.axvline(batch_size, color=INK, lw=1, ls=DASHES, zorder=1)
            ax.set_title(f"{work}, patches per second", loc="left", fontsize=9.5)
            ax.set(xlabel="patches in a batch", xscale="log", yscale="log")
            _mark_sizes(ax, sizes)
        handles = [_handle(number, each, variants[0]) for number, each in enumerate(variants)]
        own = Line2D([], [], color=INK, lw=1, ls=DASHES, label="the config's batch")
        figure.legend(
            handles=[*handles, own], loc="lower center", ncols=4, frameon=False, fontsize=8,
            handlelength=1.8, columnspacing=1.4,
        )  # fmt: skip
    return figure


def plot_time(parts: Mapping[Bound, float]) -> Figure:
    """Plot the shares of a training's time, which sum to 1, as one bar."""
    with house_figure(BAR, left=0.03, right=0.96, bottom=0.35, top=0.66) as figure:
        ax = figure.add_subplot()
        start = 0.0
        shown = [part for part in PART_COLORS if parts.get(part, 0.0) > 0]
        for part in shown:
            ax.barh(0, parts[part], left=start, color=PART_COLORS[part], height=1, lw=0)
            start += parts[part]
        ax.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[], xlabel="share of the training's time")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: percent(share, 0)))
        ax.spines[:].set_visible(False)
        ax.grid(False)
        handles = [
            Patch(color=PART_COLORS[part], label=f"{PART_NAMES[part]} {percent(parts[part])}")
            for part in shown
        ]
        ax.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False,
            fontsize=8, handlelength=1, columnspacing=1.4, borderaxespad=0.4, borderpad=0,
        )  # fmt: skip
    return figure


def _draw_line(ax: Axes, computing: Computing, number: int) -> None:
    color, marker = _look(number)
    sizes = [at.batch_size for at in computing.at]
    medians = [at.rate.median for at in computing.at]
    line = ax.plot(sizes, medians, color=color, marker=marker, ms=3.5, lw=1.2)[0]
    if len(sizes) < 3:  # a line would say what lies between
        line.set_linestyle("")
        return
    lows, highs = ([getattr(at.rate, end) for at in computing.at] for end in ("low", "high"))
    ax.fill_between(sizes, lows, highs, color=color, alpha=0.18, lw=0)
    if number == 0:
        line.set(lw=2.2, zorder=3)


def _handle(number: int, variant: Variant, own: Variant) -> Line2D:
    color, marker = _look(number)
    name = variant_in_words(variant, own)
    return Line2D([], [], color=color, marker=marker, ms=3.5, label=name)


def _look(number: int) -> tuple[str, str]:
    """Return a colour and a marker that no other of 12 lines has both of."""
    return SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]


def _mark_sizes(ax: Axes, sizes: Sequence[int]) -> None:
    """Write numbers as one reads them; of many batch sizes, every second one."""
    shown = sizes[::2] if len(sizes) > MOST_SIZES else sizes
    ax.set_xticks(shown, [f"{size:,}" for size in shown], minor=False)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
    ax.yaxis.set_minor_locator(NullLocator())
