"""The tables of the page: what was searched, and every trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from ml_core.search.page.facts import StudyFacts
from ml_core.search.space import Choices, Parameter
from ml_core.search.trials import Trial
from ml_core.search.words import said

STATES = ("complete", "pruned", "running", "lost", "failed")  # the order of the table
NO_VALUE = ""  # of a parameter that was not active


@dataclass(frozen=True)
class ParameterRow:
    """One searched parameter; `effect` is yes, partly, no or not tested."""

    key: str
    searched: str
    condition: str
    best: str
    effect: str


@dataclass(frozen=True)
class TrialRow:
    """One trial; `link` is relative to the page, empty where its run is not there."""

    number: int
    state: str
    value: float | None
    epochs: int
    params: tuple[str, ...]
    seconds: float
    num_attempts: int
    why: str  # it failed
    link: str
    is_best: bool


def parameter_rows(facts: StudyFacts) -> list[ParameterRow]:
    """Return a row for each parameter of the search space."""
    best = facts.best.params if facts.best is not None else {}
    return [
        ParameterRow(
            key,
            _searched(parameter),
            " and ".join(
                f"{other} is {' or '.join(map(said, values))}"
                for other, values in parameter.when.items()
            ),
            said(best[key], 4) if key in best else NO_VALUE,
            _effect(facts, key),
        )
        for key, parameter in facts.space.parameters.items()
    ]


def trial_rows(facts: StudyFacts) -> list[TrialRow]:
    """Return a row for each trial: complete ones from the best, then pruned ones, then others."""
    sign = -1 if facts.record.direction == "maximize" else 1

    def place(trial: Trial) -> tuple[int, float, int]:
        known = trial.value is not None and math.isfinite(trial.value)
        value = sign * float(trial.value or 0.0) if known else math.inf
        return STATES.index(trial.state), value, trial.number

    return [_trial_row(facts, trial) for trial in sorted(facts.trials, key=place)]


def _trial_row(facts: StudyFacts, trial: Trial) -> TrialRow:
    params = tuple(
        said(trial.params[key], 4) if key in trial.params else NO_VALUE
        for key in facts.space.parameters
    )
    return TrialRow(
        number=trial.number,
        state=trial.state,
        value=trial.value if trial.value is not None and math.isfinite(trial.value) else None,
        epochs=len(trial.reports),
        params=params,
        seconds=trial.seconds,
        num_attempts=len(trial.attempts),
        why=": ".join(part for part in (trial.cause, trial.error) if part),
        link=_link(facts, trial),
        is_best=trial is facts.best,
    )


def _link(facts: StudyFacts, trial: Trial) -> str:
    """Return where the trial's run is: its report, or else its folder."""
    run = trial.run
    if run is None or not run.record_path.is_file():
        return ""
    target = run.report_path if run.report_path.is_file() else run.path
    relative = quote(target.relative_to(facts.study.path).as_posix())
    return relative if target == run.report_path else f"{relative}/"


def _searched(parameter: Parameter) -> str:
    if isinstance(parameter, Choices):
        return _shortened([said(value) for value in parameter.values])
    words = f"{said(parameter.low)} to {said(parameter.high)}"
    if parameter.log:
        words += ", logarithmic"
    if parameter.step is not None:
        words += f", in steps of {said(parameter.step)}"
    return words


def _shortened(values: Sequence[str], most: int = 12) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def _effect(facts: StudyFacts, key: str) -> str:
    words = {"no-effect": "no", "values-alike": "partly"}
    for finding in facts.effects:
        if finding.id in words and finding.facts.get("parameter") == key:
            return words[finding.id]
        if finding.id == "effect-not-tested" and key in finding.facts["parameters"]:
            return "not tested"
    return "yes"
