"""Who ran which trial when: the time of a study, worker by worker."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ml_core.page.figure_style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    VERMILLION,
    house_figure,
)
from ml_core.page.text import duration
from ml_core.search.plots import short
from ml_core.search.trials import Attempt

WIDTH, PER_WORKER = 8.6, 0.34  # inches
LONGEST_NAME = 20
SHORTEST_PAUSE_S = (
    60.0  # and a twentieth of the busy time: a longer one, with nobody at work, is cut
)
PAUSE_SHARE = 0.05
COLORS = {"complete": BLUE, "pruned": MUTED, "failed": VERMILLION, "lost": ORANGE, "running": GREEN}


@dataclass(frozen=True)
class Span:
    """One attempt in time: seconds since the first claim of the study."""

    worker: str
    number: int
    start_s: float
    end_s: float
    state: str


@dataclass(frozen=True)
class Pause:
    """A time in which nobody worked, cut out of the axis at `at_s`."""

    at_s: float
    seconds: float


def spans_of(attempts: Iterable[Attempt]) -> list[Span]:
    """Return a span for each attempt; one whose end is not known is as long as it was alive.

    Claims are noted by the second: an attempt ends at the latest where its worker's next begins.
    """
    attempts = sorted(attempts, key=lambda attempt: attempt.claimed_at)
    if not attempts:
        return []
    began = dt.datetime.fromisoformat(attempts[0].claimed_at)
    spans: list[Span] = []
    last_of: dict[str, int] = {}  # by worker, where its last span is in `spans`
    for attempt in attempts:
        start = (dt.datetime.fromisoformat(attempt.claimed_at) - began).total_seconds()
        worker = f"{attempt.worker.get('host', '?')} {attempt.worker.get('pid', '')}".strip()
        if worker in last_of:
            before = spans[last_of[worker]]
            spans[last_of[worker]] = replace(before, end_s=min(before.end_s, start))
        last_of[worker] = len(spans)
        spans.append(Span(worker, attempt.number, start, start + attempt.seconds, attempt.state))
    return spans


def cut_pauses(spans: Sequence[Span]) -> tuple[list[Span], list[Pause]]:
    """Return the spans moved together over long times in which nobody worked, and those times."""
    ordered = sorted(spans, key=lambda span: span.start_s)
    busy = sum(span.end_s - span.start_s for span in ordered)
    longest = max(SHORTEST_PAUSE_S, PAUSE_SHARE * busy)
    moved, pauses, until, cut = [], [], 0.0, 0.0
    for span in ordered:
        idle = span.start_s - until
        if idle > longest:
            cut += idle
            pauses.append(Pause(span.start_s - cut, idle))
        until = max(until, span.end_s)
        moved.append(replace(span, start_s=span.start_s - cut, end_s=span.end_s - cut))
    return moved, pauses


def plot_timeline(spans: Sequence[Span]) -> Figure:
    """Plot a bar for each attempt, a row for each worker; gaps are time it did not use."""
    moved, pauses = cut_pauses(spans)
    workers = list(dict.fromkeys(span.worker for span in moved))
    height = 1.0 + PER_WORKER * max(len(workers), 1)
    margins = {"left": 0.17, "right": 0.985, "bottom": 0.48 / height, "top": 1 - 0.34 / height}
    with house_figure((WIDTH, height), **margins) as figure:
        ax = figure.add_subplot()
        end = max((span.end_s for span in moved), default=1.0) or 1.0
        unit, name = _unit(end)
        for span in moved:
            _bar(ax, span, workers.index(span.worker), unit, end)
        for pause in pauses:
            ax.axvline(pause.at_s / unit, color=INK, lw=1, ls=(0, (2, 2)))
            late = pause.at_s > 0.7 * end
            ax.annotate(
                f"{duration(pause.seconds)} pause", (pause.at_s / unit, 1), (-3 if late else 3, 2),
                ha="right" if late else "left", xycoords=("data", "axes fraction"), fontsize=7.5,
                textcoords="offset points", color=MUTED,
            )  # fmt: skip
        ax.set_yticks(
            range(len(workers)), [short(each, LONGEST_NAME) for each in workers], fontsize=8
        )
        ax.set(
            xlim=(0, end / unit), ylim=(max(len(workers), 1) - 0.4, -0.6), xlabel=f"{name} of work"
        )
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        _legend(figure, [state for state in COLORS if any(span.state == state for span in moved)])
    return figure


def _bar(ax: Axes, span: Span, row: int, unit: float, end: float) -> None:
    left, width = span.start_s / unit, (span.end_s - span.start_s) / unit
    ax.add_patch(
        Rectangle((left, row - 0.36), width, 0.72, facecolor=COLORS[span.state], alpha=0.45,
                  edgecolor=PAPER, lw=0.8)
    )  # fmt: skip
    if (span.end_s - span.start_s) > 0.011 * end * len(str(span.number)) + 0.004 * end:
        ax.text(left + width / 2, row, str(span.number), ha="center", va="center", fontsize=7.5)


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")


def _legend(figure: Figure, states: Sequence[str]) -> None:
    if states:
        handles = [Rectangle((0, 0), 1, 1, facecolor=COLORS[each], alpha=0.45) for each in states]
        figure.legend(
            handles, states, loc="upper right", ncols=len(states), frameon=False, fontsize=8.5,
            labelcolor=INK, handlelength=1.2, columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip
