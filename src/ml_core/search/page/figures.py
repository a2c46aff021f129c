"""Which figures the page holds, what each is called, and what it says to who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from matplotlib.figure import Figure

from ml_core.page.text import decimal, enumerated
from ml_core.search import plots
from ml_core.search.page.facts import StudyFacts
from ml_core.search.parallel import plot_parallel
from ml_core.search.timeline import plot_timeline, spans_of


@dataclass(frozen=True)
class PageFigure:
    """`name` is that of its file, `description` is read aloud, `note` says how to read it."""

    name: str
    title: str
    description: str
    note: str
    figure: Figure
    is_wide: bool = False


def build_figures(facts: StudyFacts) -> list[PageFigure]:
    """Return the figures that the trials give; one without data is left out."""
    if not facts.trials:
        return []
    has_values = any(plots.is_number(trial.value) for trial in facts.trials)
    return [
        *(_course_figures(facts) if has_values else ()),
        *(_slices(facts) if has_values else ()),
        *_wide_figures(facts, has_values),
    ]


def _course_figures(facts: StudyFacts) -> Iterator[PageFigure]:
    direction, label = facts.record.direction, facts.label
    has_pruned = any(trial.state == "pruned" for trial in facts.trials)
    best = "No trial is complete."
    if facts.best is not None:
        best = f"Best is trial {facts.best.number} with {decimal(facts.best.value, 4)}."
    yield PageFigure(
        "history", "Best so far", f"{label} of each trial by its number. {best}",
        "A pruned trial is drawn at its last value, of an earlier epoch than a complete one's."
        if has_pruned else "",
        plots.plot_history(facts.trials, facts.best, direction, label),
    )  # fmt: skip
    if any(trial.reports for trial in facts.trials):
        yield PageFigure(
            "learning_curves", "Every trial by epoch",
            f"{label} by epoch, a line for each trial; crosses are where trials were pruned.",
            "A pruned trial whose line was still improving fast may have been stopped too early."
            if has_pruned else "",
            plots.plot_learning_curves(facts.trials, facts.best, direction, label),
        )  # fmt: skip
    if facts.importances.rows:
        shares = [f"{row.key} {row.value:.2f}" for row in facts.importances.rows]
        yield PageFigure(
            "importance", "Which parameter mattered",
            f"Share of importance of each parameter: {enumerated(shares)}.",
            f"{facts.importances.note} PED-ANOVA: what sets the best trials apart.",
            plots.plot_importance(facts.importances),
        )  # fmt: skip


def _slices(facts: StudyFacts) -> Iterator[PageFigure]:
    for axis in facts.axes:
        if not any(axis.key in trial.params for trial in facts.trials):
            continue
        yield PageFigure(
            f"slice_{file_name(axis.key)}", axis.key,
            f"{facts.label} of each trial over {axis.key}.", "",
            plots.plot_slice(
                facts.trials, facts.best, axis, facts.record.direction, facts.label
            ),
        )  # fmt: skip


def _wide_figures(facts: StudyFacts, has_values: bool) -> Iterator[PageFigure]:
    if has_values and facts.axes:
        without = [trial for trial in facts.trials if not plots.is_number(trial.value)]
        left_out = f" {len(without)} trials without a value are not drawn." if without else ""
        yield PageFigure(
            "parallel", "All parameters together",
            f"A line for each trial through its parameters to its {facts.label}.",
            "A dot below an axis: the parameter was not active. Equal choices are drawn side by "
            f"side.{left_out}",
            plot_parallel(
                facts.trials, facts.best, facts.axes, facts.record.direction, facts.label
            ),
            is_wide=True,
        )  # fmt: skip
    spans = spans_of(attempt for trial in facts.trials for attempt in trial.attempts)
    if spans:
        yield PageFigure(
            "timeline", "Who ran what, when",
            f"A bar for each attempt, a row for each of {len({s.worker for s in spans})} workers.",
            "The number is the trial's. Gaps are time that a worker did not use; where nobody "
            "worked for long, the time is cut out.",
            plot_timeline(spans), is_wide=True,
        )  # fmt: skip


def file_name(key: str) -> str:
    """Return a config key as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", key)
