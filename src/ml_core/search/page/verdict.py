"""The study in one glance: its best trial, how the others ended, the cost, what to type next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ml_core.page.text import decimal, duration, enumerated
from ml_core.search.page.facts import StudyFacts
from ml_core.search.timeline import Span, cut_pauses, spans_of
from ml_core.search.trials import Trial

SEEDS = "[1, 2, 3]"


@dataclass(frozen=True)
class Step:
    """Something to do next, with the command to type."""

    text: str
    command: str


@dataclass(frozen=True)
class Cost:
    """Where the time went, in seconds; `saved_s` is what pruned trials would have taken besides."""

    spent_s: float
    saved_s: float
    wall_s: float  # without times in which nobody worked
    num_side_by_side: int  # trials at one time, at most

    @property
    def share_saved(self) -> float:
        total = self.spent_s + self.saved_s
        return self.saved_s / total if total else math.nan

    @property
    def share_busy(self) -> float:
        room = self.wall_s * self.num_side_by_side
        return min(1.0, self.spent_s / room) if room else math.nan


@dataclass(frozen=True)
class Verdict:
    """`low` and `high` are the interval of the best value, None where it was not evaluated."""

    headline: str
    low: float | None
    high: float | None
    best_epoch: int | None
    counts: dict[str, int]
    num_retried: int
    cost: Cost
    optimism: str
    steps: tuple[Step, ...]

    @property
    def others(self) -> str:
        """How the trials that are not complete ended, in words."""
        words = {"lost": "to be tried again"}
        parts = [f"{count} {words.get(state, state)}" for state, count in self.counts.items()
                 if state != "complete" and count]  # fmt: skip
        if self.num_retried:
            parts.append(f"{self.num_retried} tried again")
        return ", ".join(parts) or "none pruned, none failed"


def build_verdict(facts: StudyFacts) -> Verdict:
    """Return the verdict on a study as it stands."""
    of_metric = facts.scores.get("metrics", {}).get(facts.metric, {})
    states = ("complete", "pruned", "failed", "running", "lost")
    return Verdict(
        headline=_headline(facts),
        low=of_metric.get("low"),
        high=of_metric.get("high"),
        best_epoch=_best_epoch(facts.best, facts.record.direction) if facts.best else None,
        counts={state: len(facts.of_state(state)) for state in states},
        num_retried=sum(len(trial.attempts) > 1 for trial in facts.trials),
        cost=compute_cost(facts.trials),
        optimism=_optimism(facts),
        steps=tuple(_steps(facts)),
    )


def compute_cost(trials: Sequence[Trial]) -> Cost:
    """Return what the trials cost, and what pruning saved.

    A pruned trial would have gone on for the epochs of the longest complete one, each as long as
    its own were.
    """
    full = max((len(trial.reports) for trial in trials if trial.state == "complete"), default=0)
    saved = 0.0
    for trial in trials:
        if trial.state == "pruned" and trial.reports:
            per_epoch = trial.last.seconds / len(trial.reports)
            saved += per_epoch * max(0, full - len(trial.reports))
    spans, _ = cut_pauses(spans_of(attempt for trial in trials for attempt in trial.attempts))
    return Cost(
        spent_s=sum(trial.seconds for trial in trials),
        saved_s=saved,
        wall_s=max((span.end_s for span in spans), default=0.0),
        num_side_by_side=_side_by_side(spans),
    )


def _side_by_side(spans: Sequence[Span]) -> int:
    # An end before a start of the same moment: one trial after the other is one at a time.
    events = sorted([(span.start_s, 1) for span in spans] + [(span.end_s, -1) for span in spans])
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def _headline(facts: StudyFacts) -> str:
    if facts.best is not None:
        return f"Best: trial {facts.best.number}, {facts.label} {decimal(facts.best.value, 4)}"
    if not facts.trials:
        return "No trial has begun"
    if facts.of_state("running", "lost"):
        return "No trial is complete yet"
    return "No trial is complete: there is no best one"


def _best_epoch(trial: Trial, direction: str) -> int | None:
    finite = {epoch: value for epoch, value in trial.reports.items() if math.isfinite(value)}
    if not finite:
        return None
    pick = max if direction == "maximize" else min
    return pick(finite, key=lambda epoch: finite[epoch])


def _optimism(facts: StudyFacts) -> str:
    tried = len(facts.of_state("complete", "pruned"))
    if facts.best is None or tried < 2:
        return ""
    return (
        f"The best of {tried} is optimistic: it was picked for its value, luck included, on the "
        f"very patches that value is measured on, and each trial had one seed "
        f"({len(facts.of_state('complete'))} trained to the end).{_lead(facts.best, facts.second)}"
    )


def _lead(best: Trial, second: Trial | None) -> str:
    """Return a sentence on how far the best is ahead; nothing where it is the only one."""
    if second is None or best.value is None or second.value is None:
        return ""
    if best.value == second.value:
        return f" Trial {second.number} has the same value."
    return (
        f" It is {abs(best.value - second.value):.2g} ahead of the second, trial {second.number}."
    )


def _steps(facts: StudyFacts) -> list[Step]:
    folder = shlex.quote(str(facts.study.path))
    steps = []
    if facts.of_state("running", "lost") or len(facts.trials) < facts.record.num_trials:
        steps.append(Step("Go on with the search, here or from another job:",
                          f"ml-core tune --resume {folder}"))  # fmt: skip
    if facts.best is None or facts.best.run is None:
        return steps
    run = shlex.quote(str(facts.best.run.path))
    config = shlex.quote(str(facts.best.run.config_path))
    if not facts.scores:
        steps.append(
            Step(f"Give trial {facts.best.number} its interval:", f"ml-core evaluate {run}")
        )
    steps.append(Step("Confirm it with seeds, each a run of its own:",
                      f"ml-core train {config} --set 'seeds={SEEDS}'"))  # fmt: skip
    steps.append(Step("Freeze the champion, which must beat every baseline:",
                      f"ml-core select {folder}"))  # fmt: skip
    return steps


def cost_in_words(cost: Cost) -> str:
    """Return "2 at a time, 93 % busy; 31 min of training"."""
    parts = [f"{cost.num_side_by_side} at a time"]
    if math.isfinite(cost.share_busy):
        parts.append(f"{cost.share_busy:.0%} busy".replace("%", " %"))
    return f"{enumerated(parts)}; {duration(cost.spent_s)} of training"
