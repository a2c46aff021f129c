"""A study in lines of text: one as each trial ends, the table of all of them, how it went."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.durable import written_aside
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.trials import Attempt, Trial, best_trial
from ml_core.search.words import said


def render_trial(trial: Trial, trials: Sequence[Trial], record: StudyRecord) -> str:
    """Return the line of a trial that has just ended for good."""
    value = f"{record.metric} {trial.value:.4f}" if trial.value is not None else trial.cause
    best = best_trial(trials, record)
    best_so_far = f"best {best.value:.4f} (trial {best.number})" if best else "none complete yet"
    num_left = record.num_trials - sum(each.is_finished for each in trials)
    return (
        f"trial {trial.number}  {trial.state:8}  {value}  {best_so_far}  "
        f"{render_params(trial.params)}  {trial.seconds:.0f} s  {num_left} to go"
    )


def render_attempt(attempt: Attempt) -> str:
    """Return the line of an attempt that ended before its trial did."""
    return f"trial {attempt.number}: {attempt.error}; it will be gone on with"


def render_params(params: Mapping[str, Any]) -> str:
    """Return parameters as a person would say them."""
    return ", ".join(f"{key} {said(value, 4)}" for key, value in params.items())


def count_states(trials: Sequence[Trial], record: StudyRecord) -> dict[str, int]:
    """Return how many slots are in each state, those that nobody claimed as `waiting`."""
    counts = Counter[str](trial.state for trial in trials)
    counts["waiting"] = record.num_trials - len(trials)
    return {state: number for state, number in counts.items() if number}


def commonest_cause(trials: Sequence[Trial]) -> str:
    """Return the error that most failed trials ended with, and how many."""
    errors = Counter(trial.error or trial.cause for trial in trials if trial.state == "failed")
    if not errors:
        return "none of them failed"
    error, number = errors.most_common(1)[0]
    return f"{number} of {errors.total()} by: {error}"


def write_table(study: StudyDir, trials: Sequence[Trial], record: StudyRecord) -> None:
    """Write trials.csv, a row per slot; `run` is relative to the study."""
    keys = list(record.space)
    columns = ["number", "state", "value", *keys, "attempts", "seconds", "best_epoch", "run"]
    columns += ["cause", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for trial in trials:
        run = trial.run
        writer.writerow(
            {
                "number": trial.number,
                "state": trial.state,
                "value": "" if trial.value is None else repr(trial.value),
                **{key: trial.params[key] for key in keys if key in trial.params},
                "attempts": len(trial.attempts),
                "seconds": f"{trial.seconds:.1f}",
                "best_epoch": best_epoch(trial, record) or "",
                "run": run.path.relative_to(study.path) if run and run.path.is_dir() else "",
                "cause": trial.cause,
                "error": trial.error,
            }
        )
    with written_aside(study.table_path) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8")


def best_epoch(trial: Trial, record: StudyRecord) -> int | None:
    """Return the epoch with the best metric, of equal ones the first; None without a number."""
    best: int | None = None
    for epoch, value in sorted(trial.reports.items()):
        if not math.isnan(value) and (best is None or record.is_better(value, trial.reports[best])):
            best = epoch
    return best
