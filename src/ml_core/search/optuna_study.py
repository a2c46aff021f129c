"""The trials as optuna has them: in memory, to sample and to prune; in a file, for its tools.

Optuna is never where trials are kept: its journal needs a lock that a kill leaves behind, and one
line cut short makes it unreadable for ever.
"""

from __future__ import annotations

import datetime as dt
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_core.durable import written_aside
from ml_core.search.space import Choices, Parameter, Space
from ml_core.search.study_dir import Direction
from ml_core.search.trials import Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RUNG = "completed_rung_{}"  # how optuna's SuccessiveHalvingPruner names its notes


def rebuild(trials: Sequence[Trial], space: Space, direction: Direction) -> Study:
    """Return an optuna study in memory that holds `trials`.

    A lost trial, which is to be tried again, is running to optuna, as what runs now is.
    """
    with quiet_optuna() as optuna:
        study: Study = optuna.create_study(direction=direction)
        for trial in trials:
            study.add_trial(frozen(trial, space))
        return study


def frozen(trial: Trial, space: Space) -> FrozenTrial:
    """Return a trial as optuna takes it; choices that are lists are their JSON there."""
    from optuna.trial import FrozenTrial, TrialState

    state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(trial.state)
    state = state or (TrialState.FAIL if trial.state == "failed" else TrialState.RUNNING)
    started = _time(trial.attempts[0].claimed_at) if trial.attempts else _time(None)
    ended = _time(trial.attempts[-1].ended_at) if trial.attempts else started
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=trial.value if trial.state in ("complete", "pruned") else None,
        datetime_start=started,
        datetime_complete=max(started, ended) if trial.is_finished else None,
        params={key: to_category(value) for key, value in trial.params.items()},
        distributions={key: distribution(space.parameters[key]) for key in trial.params},
        user_attrs={"cause": trial.cause, "error": trial.error} if trial.error else {},
        system_attrs=_rungs(trial),
        intermediate_values=dict(trial.reports),
    )


def _rungs(trial: Trial) -> dict[str, Any]:
    """Return optuna's notes of the rungs a trial has ended, each with the metric it had there."""
    notes: dict[str, Any] = {}
    for epoch, value in sorted(trial.reports.items()):
        for rung in range(len(notes), trial.num_rungs.get(epoch, 0)):
            notes[RUNG.format(rung)] = value
    return notes


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the parameter as optuna takes it."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(parameter, Choices):
        return CategoricalDistribution([to_category(value) for value in parameter.values])
    low, high = parameter.ends()
    if parameter.is_whole:
        return IntDistribution(int(low), int(high), parameter.log, int(parameter.step or 1))
    return FloatDistribution(float(low), float(high), parameter.log, parameter.step)


def to_category(value: Any) -> Any:
    """Return a value as optuna takes it: lists and mappings, which it refuses, as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def export(
    trials: Sequence[Trial], space: Space, direction: Direction, name: str, path: Path
) -> None:
    """Write the trials as an optuna journal, for optuna-dashboard; the file is whole or the old.

    Raises OSError when it cannot be written.
    """
    with quiet_optuna() as optuna, written_aside(path) as aside:
        aside.unlink(missing_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(
            str(aside), optuna.storages.journal.JournalFileOpenLock(str(aside))
        )
        storage = optuna.storages.JournalStorage(backend)
        study = optuna.create_study(study_name=name, direction=direction, storage=storage)
        for trial in trials:
            study.add_trial(frozen(trial, space))


@contextmanager
def quiet_optuna() -> Iterator[Any]:
    """Yield optuna; while inside it neither logs what it does nor warns that a part is new."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of a median of NaN
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _time(text: str | None) -> dt.datetime:
    """Return an ISO time as optuna has it, without its zone; without one, the start of time."""
    when = dt.datetime.fromisoformat(text) if text else dt.datetime.fromtimestamp(0, dt.UTC)
    return when.astimezone(dt.UTC).replace(tzinfo=None)
