"""The rules that choose: the best mean, the simplest within one standard error, a constraint.

A group of runs wins, by the mean over its seeds; its best run is the champion. Ties go to the
simpler model: fewest parameters, then fewest FLOPs, then name, so the same runs always give the
same champion, in whatever order they are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ml_core.errors import RunError
from ml_core.metrics import HIGHER_IS_BETTER
from ml_core.selection.groups import Group
from ml_core.selection.runs import Candidate
from ml_core.selection.spread import Spread, compute_spread, highest_value


@dataclass(frozen=True)
class Scored:
    """A candidate's metrics on validation, at the threshold that the champion would get."""

    candidate: Candidate
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Standing:
    """How a group stands; `runs` are in the order of the group's seeds."""

    group: Group
    runs: tuple[Scored, ...]

    def spread(self, metric: str) -> Spread:
        """Return the spread of `metric` over the seeds."""
        values = [run.metrics[metric] for run in self.runs]
        return compute_spread(values, highest=highest_value(metric))

    @property
    def learned(self) -> tuple[Scored, ...]:
        """The runs that may be champion: "not-learning" never is, whatever its numbers."""
        return tuple(run for run in self.runs if run.candidate.has_learned)


@dataclass(frozen=True)
class Choice:
    """The winner's group first, then the others as the rule ranks them, and why in one sentence."""

    ranked: tuple[Standing, ...]
    champion: Scored
    metric: str  # that ranked the winner's runs
    why: str

    @property
    def runner_up(self) -> Scored | None:
        """The best run of the next group; with one group, its second run; None without any.

        Only what has learned: to beat a model that is stuck is no evidence.
        """
        others = [standing.learned for standing in self.ranked[1:] if standing.learned]
        rest = [run for run in self.ranked[0].learned if run is not self.champion]
        runs = others[0] if others else rest
        return _best_first(runs, self.metric)[0] if runs else None


# What the standard error of one run's metric on validation is, and how it was got.
StandardError = Callable[[Candidate, str], tuple[float, str]]


def choose(
    standings: Sequence[Standing],
    rule: str,
    *,
    metric: str,
    min_recall: float,
    standard_error: StandardError,
) -> Choice:
    """Return what `rule` chooses: best_mean, one_standard_error or constraint.

    Raises RunError when no group has learned, `metric` is undefined for all, or none keeps the
    constraint.
    """
    rules: dict[str, Callable[[], Choice]] = {
        "best_mean": lambda: best_mean(standings, metric),
        "one_standard_error": lambda: one_standard_error(standings, metric, standard_error),
        "constraint": lambda: constraint(standings, min_recall),
    }
    return rules[rule]()


def best_mean(standings: Sequence[Standing], metric: str) -> Choice:
    """Choose the group with the best mean of `metric` over its seeds."""
    ranked = _by_mean(standings, metric)
    spread = ranked[0].spread(metric)
    return _choice(
        ranked, metric, f"the best mean {metric}, {spread.mean:.4f} over {_runs(spread)}"
    )


def one_standard_error(
    standings: Sequence[Standing], metric: str, standard_error: StandardError
) -> Choice:
    """Choose the simplest group whose mean is within one standard error of the best mean.

    Breiman, Friedman, Olshen and Stone 1984, section 3.4.3. The error is that of the best group's
    mean over its seeds; with one seed there is none, and `standard_error` of that run on the
    validation patches takes its place.
    """
    ranked = _by_mean(standings, metric)
    best = ranked[0]
    spread = best.spread(metric)
    if spread.n > 1:
        error, how = spread.sd / math.sqrt(spread.n), f"over {_runs(spread)}"
    else:
        error, how = standard_error(_best_first(best.learned, metric)[0].candidate, metric)
    if math.isnan(error):
        raise RunError(
            f"the standard error of {metric} is undefined on these patches, as with fewer than two "
            "of a class. Validate on more, or take --set selection.rule=best_mean."
        )
    reach = _oriented(spread.mean, metric) - error
    near = [each for each in ranked if _oriented(each.spread(metric).mean, metric) >= reach]
    winner = min((each for each in near if each.learned), key=lambda each: each.group.simplicity)
    rest = [each for each in ranked if each is not winner]
    return _choice(
        [winner, *rest],
        metric,
        f"the simplest of {len(near)} within one standard error ({error:.4f}, {how}) of the best "
        f"mean {metric}, {spread.mean:.4f}",
    )


def constraint(standings: Sequence[Standing], min_recall: float) -> Choice:
    """Choose the best mean precision among groups whose mean recall is at least `min_recall`.

    Recall and precision are at each run's threshold; the champion itself keeps the bound as well.
    Raises RunError when no group does.
    """
    by_recall = _by_mean(standings, "recall")
    bounded = [each for each in by_recall if each.spread("recall").mean >= min_recall]
    bounded = [each for each in bounded if _keeping(each, min_recall)]
    if not bounded:
        raise RunError(
            f"no candidate has a recall of {min_recall:g} at its threshold: the highest is "
            f"{by_recall[0].spread('recall').mean:.4f}, of {by_recall[0].group.runs[0].name}. "
            "Choose thresholds that reach it (--set selection.threshold.rule=recall --set "
            f"selection.threshold.at_least={min_recall:g}), or lower selection.min_recall."
        )
    ranked = _by_mean(bounded, "precision")
    rest = [each for each in by_recall if each not in bounded]
    spread = ranked[0].spread("precision")
    return Choice(
        ranked=(*ranked, *rest),
        champion=_best_first(_keeping(ranked[0], min_recall), "precision")[0],
        metric="precision",
        why=f"the best mean precision, {spread.mean:.4f} over {_runs(spread)}, of {len(ranked)} "
        f"with a mean recall of at least {min_recall:g}",
    )


def _keeping(standing: Standing, min_recall: float) -> list[Scored]:
    return [run for run in standing.learned if run.metrics["recall"] >= min_recall]


def _choice(ranked: Sequence[Standing], metric: str, why: str) -> Choice:
    return Choice(tuple(ranked), _best_first(ranked[0].learned, metric)[0], metric, why)


def _by_mean(standings: Sequence[Standing], metric: str) -> list[Standing]:
    """Return the groups, the best mean first; those in which nothing learned come last."""

    def place(standing: Standing) -> tuple[bool, float, tuple[float, float, str]]:
        mean = standing.spread(metric).mean
        worst = float("-inf")
        value = worst if math.isnan(mean) else _oriented(mean, metric)
        return not standing.learned, -value, standing.group.simplicity

    ranked = sorted(standings, key=place)
    if not ranked[0].learned:
        num_runs = sum(len(standing.runs) for standing in ranked)
        raise RunError(
            f"none of the {num_runs} candidates has learned: each carries the finding "
            '"not-learning" (ml-core report shows why), so there is no champion. Train with '
            "another learning rate, or look at the data: ml-core audit."
        )
    if math.isnan(ranked[0].spread(metric).mean):
        raise RunError(f"{metric} is undefined for every candidate, so none can be chosen by it.")
    return ranked


def _best_first(runs: Sequence[Scored], metric: str) -> list[Scored]:
    def place(run: Scored) -> tuple[bool, float, str, int]:
        value = run.metrics[metric]
        oriented = 0.0 if math.isnan(value) else -_oriented(value, metric)
        return math.isnan(value), oriented, run.candidate.name, run.candidate.record.seed

    return sorted(runs, key=place)


def _oriented(value: float, metric: str) -> float:
    return value if HIGHER_IS_BETTER[metric] else -value


def _runs(spread: Spread) -> str:
    return "one run" if spread.n == 1 else f"{spread.n} seeds"
