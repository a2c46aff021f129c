import math

import numpy as np
import optuna
import pytest
from search_steps import end, make_study, take

from ml_core.errors import ConfigError
from ml_core.search.journal import Journal
from ml_core.search.pruner import judge, pin_pruner
from ml_core.search.trials import load_trials

ASHA = pin_pruner("asha", min_epochs=1, reduction_factor=3)
MEDIAN = pin_pruner("median", num_startup_trials=2, warmup_epochs=2)
EPOCHS, NUM_TRIALS, NUM_WORKERS = 9, 14, 3


def curves(seed):
    """Return the metric of each trial after each epoch, (trials, epochs), a few of them NaN."""
    generator = np.random.default_rng(seed)
    rise = 1 - np.exp(-np.arange(1, EPOCHS + 1) * generator.uniform(0.1, 1, (NUM_TRIALS, 1)))
    values = rise * generator.uniform(0.5, 1, (NUM_TRIALS, 1))
    values += generator.normal(0, 0.02, values.shape)
    values[generator.random(values.shape) < 0.03] = np.nan
    return values


def by_optuna(pruner, values, direction):
    """Return (trial, epoch, stop) of each decision, as optuna makes them in its own study."""
    if pruner["name"] == "asha":
        own = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    else:
        own = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
    study = optuna.create_study(direction=direction, pruner=own)
    trials = {}

    def ask(number, epoch, value):
        trial = trials.get(number) or trials.setdefault(number, study.ask())
        trial.report(value, epoch)
        return trial.should_prune()

    def tell(number, state):
        state = {"pruned": optuna.trial.TrialState.PRUNED}.get(state)
        value = None if state else float(np.nanmax(values[number]))
        study.tell(trials[number], value, state)

    return played(values, ask, tell)


def by_files(pruner, values, direction, folder):
    """Return the same of our own: each decision from the files of all trials."""
    study = make_study(folder, num_trials=NUM_TRIALS, direction=direction)
    folders, reports, num_rungs = {}, {}, {}

    def ask(number, epoch, value):
        if number not in folders:
            folders[number] = take(study, number)
            reports[number], num_rungs[number] = {}, {}
        reports[number][epoch] = value
        trials = load_trials(study)
        verdict = judge(pruner, trials, number, reports[number], num_rungs[number], direction)
        num_rungs[number][epoch] = verdict.num_rungs
        with Journal(folders[number]) as journal:
            journal.report(epoch, value, num_rungs=verdict.num_rungs, stop=verdict.stop)
        return verdict.stop

    def tell(number, state):
        value = float(np.nanmax(values[number]))
        end(folders[number], state, value=value if state == "complete" else None)

    return played(values, ask, tell)


def played(values, ask, tell):
    """Let workers of different speed take trial after trial; return all decisions in order."""
    decisions, waiting, running = [], list(range(NUM_TRIALS)), {}
    for tick in range(10 * NUM_TRIALS * EPOCHS):
        worker = (tick * tick + tick // 3) % NUM_WORKERS
        if worker not in running:
            if not waiting:
                continue
            running[worker] = [waiting.pop(0), 0]
        number, done = running[worker]
        stop = ask(number, done + 1, float(values[number, done]))
        decisions.append((number, done + 1, stop))
        running[worker][1] += 1
        if stop or done + 1 == EPOCHS:
            tell(number, "pruned" if stop else "complete")
            del running[worker]
    return decisions


@pytest.mark.parametrize("pruner", [ASHA, MEDIAN], ids=["asha", "median"])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_decisions_from_the_files_are_optunas_own_with_asynchronous_workers(
    tmp_path, pruner, direction
):
    values = curves(0) if direction == "maximize" else -curves(0)
    expected = by_optuna(pruner, values, direction)
    assert by_files(pruner, values, direction, tmp_path) == expected
    assert len({number for number, _, _ in expected}) == NUM_TRIALS
    stopped = {number for number, _, stop in expected if stop}
    assert 2 < len(stopped) < NUM_TRIALS


def test_asha_lets_one_of_three_past_each_rung(tmp_path):
    study = make_study(tmp_path)
    seen = []
    for number, value in enumerate([0.5, 0.4, 0.6, 0.55, 0.7, 0.3]):
        folder = take(study, number)
        verdict = judge(ASHA, load_trials(study), number, {1: value}, {}, "maximize")
        end(folder, None, [value], num_rungs={1: verdict.num_rungs})
        seen.append(verdict.stop)
    # Worked by hand: of n that ended the rung n // 3 go on, at least the best.
    assert seen == [False, True, False, True, False, True]


def test_between_two_rungs_nothing_is_decided_and_what_was_noted_stays(tmp_path):
    study = make_study(tmp_path)
    end(take(study, 0), "complete", [0.9, 0.9, 0.9], num_rungs={1: 1, 2: 1, 3: 2}, value=0.9)
    take(study, 1)
    trials = load_trials(study)
    verdict = judge(ASHA, trials, 1, {1: 0.95, 2: 0.1}, {1: 1}, "maximize")
    assert (verdict.stop, verdict.num_rungs) == (False, 1)
    verdict = judge(ASHA, trials, 1, {1: 0.95, 2: 0.1, 3: 0.2}, {1: 1, 2: 1}, "maximize")
    assert (verdict.stop, verdict.num_rungs) == (True, 2)


def test_a_metric_that_is_no_number_stops_a_trial(tmp_path):
    study = make_study(tmp_path)
    for number in range(2):
        end(take(study, number), "complete", [0.5, 0.6, 0.7], value=0.7)
    trials = load_trials(study)
    assert judge(ASHA, trials, 2, {1: math.nan}, {}, "maximize").stop
    assert judge(MEDIAN, trials, 2, {1: math.nan, 2: math.nan}, {}, "maximize").stop
    assert not judge(pin_pruner("none"), trials, 2, {1: math.nan}, {}, "maximize").stop


def test_the_median_gives_every_trial_its_warmup(tmp_path):
    study = make_study(tmp_path)
    for number in range(2):
        end(take(study, number), "complete", [0.5, 0.6, 0.7], value=0.7)
    trials = load_trials(study)
    assert not judge(MEDIAN, trials, 2, {1: 0.1}, {}, "maximize").stop
    assert judge(MEDIAN, trials, 2, {1: 0.1, 2: 0.2}, {}, "maximize").stop
    assert not judge(MEDIAN, trials, 2, {1: 0.1, 2: 0.2}, {}, "minimize").stop
    assert not judge(MEDIAN, trials[:1], 2, {1: 0.1, 2: 0.2}, {}, "maximize").stop
    with pytest.raises(ConfigError, match="unknown pruner 'hyperband'; allowed: asha, median"):
        pin_pruner("hyperband")
