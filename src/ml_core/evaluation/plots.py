"""Matplotlib figures of a run, in one style: predictions as curves, training as lines.

Every function returns a Figure of the object interface, so nothing is drawn on a screen and no
state is shared. Colours are Okabe and Ito's, which the colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ml_core.evaluation.reliability import reliability_bins
from ml_core.metrics import Confusion, CurvePoints
from ml_core.page.figure_style import (
    BLUE,
    FIGURE_SIZE,
    GREEN,
    INK,
    MUTED,
    NORMAL_COLOR,
    PAPER,
    PNG_DPI,
    PURPLE,
    SERIES,
    TUMOUR_COLOR,
    VERMILLION,
    house_figure,
)
from ml_core.runs import RunDir

Floats = npt.NDArray[np.float64]
P = ParamSpec("P")

# The same for all, so that axes line up, and half the time of a layout that is worked out.
MARGINS = {"left": 0.155, "right": 0.965, "bottom": 0.145, "top": 0.92}
WIDE_LEFT = 0.205  # room for tick labels like 0.0005 or a word
LABELLED_RIGHT = 0.78  # room for the names at the ends of lines
LONGEST_END_LABEL = 10  # letters; longer names go into a legend
MAX_POINTS = 400  # a line of more is drawn as the median and range of as many bins

METRIC_LABELS = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "f2": "F2",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "brier": "Brier score",
    "loss": "loss",
}


def _in_house_style(
    draw: Callable[Concatenate[Axes, P], None],
) -> Callable[P, Figure]:
    """Turn a function that draws on axes into one that returns a Figure of the house style."""

    def plot(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with house_figure(FIGURE_SIZE, **MARGINS) as figure:
            draw(figure.add_subplot(), *args, **kwargs)
        return figure

    plot.__name__, plot.__doc__ = draw.__name__, draw.__doc__
    return plot


@_in_house_style
def plot_confusion_matrix(ax: Axes, cells: Confusion) -> None:
    """Plot counts and the share of each true class; the share is shown by the tint."""
    rows = [("normal", cells.tn, cells.fp), ("tumour", cells.fn, cells.tp)]
    for row, (_, *counts) in enumerate(rows):
        for column, count in enumerate(counts):
            total = sum(counts)
            share = count / total if total else 0.0
            color = BLUE if row == column else VERMILLION
            corner = (column - 0.5, row - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, facecolor=color, alpha=0.04 + 0.36 * share, lw=0))
            ax.text(column, row - 0.06, f"{count:,}", ha="center", va="center", fontsize=17)
            rate = f"{share:.1%} of {rows[row][0]}" if total else "no such patch"
            ax.text(column, row + 0.22, rate, ha="center", va="center")
    ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), xlabel="called", ylabel="is")
    ax.set_xticks([0, 1], ["normal", "tumour"])
    ax.set_yticks([0, 1], ["normal", "tumour"])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    _adjust(ax, left=WIDE_LEFT)


@_in_house_style
def plot_roc(
    ax: Axes,
    curves: Mapping[str, CurvePoints],
    note: str = "",
    operating_point: tuple[float, float] | None = None,
) -> None:
    """Plot ROC curves by name; `note` is printed below them, the operating point is (FPR, TPR)."""
    ax.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
    ax.text(0.6, 0.575, "chance", color=MUTED, rotation=35, ha="center", va="top", fontsize=8)
    _curves(ax, curves, operating_point)
    ax.set(xlabel="false positive rate", ylabel="true positive rate (recall)")
    _unit_square(ax)
    _note(ax, note, y=0.06)


@_in_house_style
def plot_pr(
    ax: Axes,
    curves: Mapping[str, CurvePoints],
    prevalence: float,
    note: str = "",
    operating_point: tuple[float, float] | None = None,
) -> None:
    """Plot precision over recall by name, with the precision of calling everything a tumour."""
    ax.axhline(prevalence, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    ax.annotate(
        f"prevalence {prevalence:.3f}", (0.02, prevalence), (0, -4), textcoords="offset points",
        color=MUTED, fontsize=8, va="top",
    )  # fmt: skip
    _curves(ax, curves, operating_point)
    ax.set(xlabel="recall", ylabel="precision")
    _unit_square(ax)
    _note(ax, note, y=0.06)


@_in_house_style
def plot_loss(ax: Axes, epochs: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> None:
    """Plot the loss of train and valid by epoch, from the records of metrics.jsonl."""
    lines = {"valid": ("val_loss", BLUE, "-"), "train": ("train_loss", GREEN, (0, (4, 1.5)))}
    _epoch_lines(ax, epochs, lines, best_epoch)
    ax.set(ylabel="loss (cross-entropy)")


@_in_house_style
def plot_epoch_metrics(
    ax: Axes,
    epochs: Sequence[Mapping[str, Any]],
    names: Sequence[str] = ("roc_auc", "pr_auc", "accuracy", "f1", "f2"),
    best_epoch: int | None = None,
) -> None:
    """Plot validation metrics by epoch, from the records of metrics.jsonl."""
    lines = {
        METRIC_LABELS[name]: (f"val_{name}", color, "-")
        for name, color in zip(names, SERIES, strict=False)
    }
    _epoch_lines(ax, epochs, lines, best_epoch)
    ax.set(ylabel="on the validation split")


@_in_house_style
def plot_epochs_of_runs(
    ax: Axes, runs: Mapping[str, Sequence[Mapping[str, Any]]], key: str, label: str
) -> None:
    """Plot one value of metrics.jsonl by epoch, a line for each run."""
    ends = []
    for number, (name, epochs) in enumerate(runs.items()):
        x, y = _column(epochs, "epoch"), _column(epochs, key)
        color = SERIES[number % len(SERIES)]
        ax.plot(x, y, color=color, marker="o", ms=2.5, label=name)
        ends.append((_last_finite(y), name, color))
    if max(map(len, runs), default=0) > LONGEST_END_LABEL:
        ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    else:
        _label_ends(ax, ends)
    ax.set(xlabel="epoch", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


@_in_house_style
def plot_learning_rate(ax: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """Plot the learning rate by step, from the records of steps.jsonl."""
    ax.plot(*_every(_column(steps, "step"), _column(steps, "learning_rate")), color=BLUE)
    _adjust(ax, left=WIDE_LEFT)
    ax.set(xlabel="step", ylabel="learning rate")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@_in_house_style
def plot_gradient_norm(ax: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """Plot the global gradient norm by step: median and range of neighbouring steps."""
    norms = _column(steps, "grad_norm")
    _band(ax, _column(steps, "step"), norms, PURPLE)
    positive = norms[np.isfinite(norms) & (norms > 0)]
    if len(positive) and positive.max() > 50 * positive.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.set(xlabel="step", ylabel="gradient norm")


@_in_house_style
def plot_step_loss(ax: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """Plot the training loss by step: median and range of neighbouring steps."""
    _band(ax, _column(steps, "step"), _column(steps, "loss"), GREEN)
    ax.set(xlabel="step", ylabel="training loss of a batch")
    ax.set_ylim(bottom=0)


@_in_house_style
def plot_probability_histogram(
    ax: Axes, y_true: npt.NDArray[np.int64], y_prob: Floats, threshold: float = 0.5
) -> None:
    """Plot how many patches of each class get which probability of tumour."""
    edges = np.linspace(0, 1, 41)
    tallest = 0.0
    for label, name, color in ((0, "normal", NORMAL_COLOR), (1, "tumour", TUMOUR_COLOR)):
        counts, _ = np.histogram(y_prob[y_true == label], edges)
        ax.stairs(counts, edges, fill=True, color=color, alpha=0.28, lw=0)
        ax.stairs(counts, edges, color=color, lw=1.3)
        tallest = max(tallest, counts.max())
        side: dict[str, Any] = (
            {"x": 0.04, "ha": "left"} if label == 0 else {"x": 0.96, "ha": "right"}
        )
        ax.text(
            y=1.02, s=f"{name}, n = {int((y_true == label).sum()):,}", color=color,
            transform=ax.transAxes, va="bottom", **side,
        )  # fmt: skip
    ax.axvline(threshold, color=INK, lw=0.9, ls=(0, (4, 3)))
    ax.annotate(
        f"threshold {threshold:g}", (threshold, tallest * 1.04), (5, 0), va="top",
        textcoords="offset points", fontsize=8,
    )  # fmt: skip
    ax.set(xlabel="probability of tumour", ylabel="patches", xlim=(0, 1), ylim=(0, tallest * 1.06))


@_in_house_style
def plot_reliability(
    ax: Axes, y_true: npt.NDArray[np.int64], y_prob: Floats, num_bins: int = 10
) -> None:
    """Plot the share of tumours among patches of like probability, with Wilson 95 % intervals.

    A calibrated model lies on the diagonal. Bins are equally wide; the area of a dot is the share
    of patches in it.
    """
    bins = reliability_bins(y_true, y_prob, num_bins)
    ax.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
    ax.text(0.5, 0.465, "calibrated", color=MUTED, rotation=35, ha="center", va="top", fontsize=8)
    ax.vlines(bins.mean_prob, bins.low, bins.high, color=BLUE, lw=1.2)
    ax.plot(bins.mean_prob, bins.share, color=BLUE, lw=1)
    sizes = 12 + 260 * bins.num / bins.num.sum()
    ax.scatter(bins.mean_prob, bins.share, s=sizes, color=BLUE, zorder=3)
    ax.set(xlabel="mean probability of tumour", ylabel="share of tumours")
    _unit_square(ax)


def save_figures(run: RunDir, figures: Mapping[str, Figure]) -> list[Path]:
    """Write each figure as figures/NAME.png of the run, on white, and return the paths."""
    run.figures_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        path = run.figures_dir / f"{name}.png"
        figure.savefig(path, dpi=PNG_DPI, facecolor=PAPER)
        paths.append(path)
    return paths


def _curves(
    ax: Axes, curves: Mapping[str, CurvePoints], operating_point: tuple[float, float] | None
) -> None:
    """Draw the curves; where there are several, a legend, since their ends coincide."""
    for number, (name, curve) in enumerate(curves.items()):
        ax.plot(*curve, color=SERIES[number % len(SERIES)], label=name)
    if len(curves) > 1:
        ax.legend(frameon=False, loc="center right", fontsize=8, labelcolor=INK)
    if operating_point is not None and np.isfinite(operating_point).all():
        ax.plot(*operating_point, marker="o", ms=7, mfc=BLUE, mec=PAPER, mew=1.5)


def _adjust(ax: Axes, **margins: float) -> None:
    figure = ax.figure
    assert isinstance(figure, Figure), "drawn by _in_house_style, not in a subfigure"
    figure.subplots_adjust(**margins)


def _unit_square(ax: Axes) -> None:
    ax.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))


def _note(ax: Axes, note: str, y: float) -> None:
    ax.text(0.97, y, note, transform=ax.transAxes, ha="right", va="bottom", linespacing=1.5)


def _epoch_lines(
    ax: Axes,
    epochs: Sequence[Mapping[str, Any]],
    lines: Mapping[str, tuple[str, str, Any]],
    best_epoch: int | None,
) -> None:
    """Draw `lines`, name -> (key of the record, colour, dashes), each named at its right end."""
    x = _column(epochs, "epoch")
    ends = []
    for name, (key, color, dashes) in lines.items():
        y = _column(epochs, key)
        if not np.isfinite(y).any():
            continue
        ax.plot(x, y, color=color, ls=dashes, marker="o", ms=3)
        ends.append((_last_finite(y), name, color))
    if best_epoch is not None:
        ax.axvline(best_epoch, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=0)
        ax.annotate(
            f"best epoch {best_epoch}", (best_epoch, 1.0), (0, 3), ha="center", va="bottom",
            xycoords=("data", "axes fraction"), textcoords="offset points", color=MUTED, fontsize=8,
        )  # fmt: skip
    _label_ends(ax, ends)
    ax.set(xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's name beside its last point, moved apart where they would touch."""
    ends = sorted(end for end in ends if np.isfinite(end[0]))
    _adjust(ax, right=LABELLED_RIGHT)
    low, high = ax.get_ylim()
    places = [(value - low) / (high - low) for value, _, _ in ends]  # as shares of the axis
    gap = 0.062
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    overshoot = max(0.0, places[-1] - 1.0) if places else 0.0
    for place, (_, name, color) in zip(places, ends, strict=True):
        ax.annotate(
            name, (1.0, place - overshoot), (6, 0), xycoords="axes fraction", va="center",
            textcoords="offset points", color=color, annotation_clip=False,
        )  # fmt: skip


def _band(ax: Axes, x: Floats, y: Floats, color: str) -> None:
    """Draw y over x; more than MAX_POINTS as the median and the range of bins of neighbours."""
    if len(x) <= MAX_POINTS:
        ax.plot(x, y, color=color, lw=1.1)
        return
    parts = np.array_split(np.arange(len(x)), MAX_POINTS // 2)
    parts = [part[np.isfinite(y[part])] for part in parts]
    parts = [part for part in parts if len(part)]
    middle = [float(np.median(x[part])) for part in parts]
    low, high = [y[part].min() for part in parts], [y[part].max() for part in parts]
    ax.fill_between(middle, low, high, color=color, alpha=0.25, lw=0)
    ax.plot(middle, [float(np.median(y[part])) for part in parts], color=color, lw=1.4)


def _every(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return about MAX_POINTS of the points, both ends among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(np.int64))
    return x[kept], y[kept]


def _column(records: Sequence[Mapping[str, Any]], key: str) -> Floats:
    """Return one key of all records as numbers; what is missing or null is NaN."""
    values = [record.get(key) for record in records]
    return np.array([np.nan if value is None else float(value) for value in values])


def _last_finite(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")
