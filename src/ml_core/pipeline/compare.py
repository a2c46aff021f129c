"""Say how runs compare: the mean over seeds, its interval, and which of two recipes is better.

Reads run.json, config.yaml, metrics.json and predictions/valid.parquet of each run; writes nothing
but the file that `out` names.

    ml-core compare runs/pcam_cnn/20260102-030405-seed1 runs/pcam_cnn/20260102-030616-seed2
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_core.errors import RunError, did_you_mean
from ml_core.evaluation.predictions import null_if_nan
from ml_core.log import shown
from ml_core.metrics import HIGHER_IS_BETTER
from ml_core.pipeline.selecting.candidates import Given, find_candidates, listed
from ml_core.runs import write_json
from ml_core.selection.groups import (
    Group,
    config_differences,
    data_differences,
    group_runs,
    label_groups,
    provenance_differences,
    scoring_differences,
)
from ml_core.selection.paired import Contender, check_same_patches, paired_differences
from ml_core.selection.runs import SPLIT, Candidate, LeftOut, check_scores, load_predictions
from ml_core.selection.spread import Spread, spreads_of
from ml_core.selection.tables import (
    render_differences,
    render_groups,
    render_spreads,
    seeds_in_words,
)

logger = logging.getLogger("ml_core.compare")


def compare(
    paths: Sequence[Path],
    *,
    mixed: bool = False,
    out: Path | None = None,
    metric: str = "roc_auc",
) -> dict[str, Any]:
    """Return the spread of every metric in each group of runs that differ only in the seed.

    Groups are in order of their mean `metric`, the best first; the best runs of the first two are
    compared on the same patches. The trials of a study are groups by themselves. Raises RunError
    for runs of different data, or, outside a study, of different configs, unless `mixed`; and where
    no run can be used.
    """
    if metric not in HIGHER_IS_BETTER:
        raise RunError(
            f"unknown metric '{metric}'; there are: {', '.join(HIGHER_IS_BETTER)}."
            f"{did_you_mean(metric, HIGHER_IS_BETTER)}"
        )
    given = find_candidates(paths)
    candidates, left_out = _with_scores(given)
    _refuse_other_thresholds(candidates)
    groups, repeated = group_runs(candidates)
    left_out += repeated
    if not mixed:
        _refuse_mixed(groups, of_a_study=bool(given.studies))
    groups = _best_first(groups, metric)
    result = {
        "split": SPLIT,
        "metric": metric,
        "groups": _describe(groups),
        "differences": _mixed_in(groups),
        "paired": _compare_best_two(groups, metric),
        "not_used": [{"run": str(each.path), "reason": each.reason} for each in left_out],
    }
    _say(result, groups, left_out)
    if out is not None:
        _write(out, result)
        logger.info("written to %s", shown(out))
    return result


def _with_scores(given: Given) -> tuple[list[Candidate], list[LeftOut]]:
    """Return the candidates whose metrics.json scores their best weights on validation."""
    kept, left_out = [], list(given.left_out)
    for candidate in given.candidates:
        try:
            check_scores(candidate)
            kept.append(candidate)
        except RunError as error:
            left_out.append(LeftOut(candidate.run.path, str(error)))
    if not kept:
        raise RunError(f"no run can be compared:\n{listed(left_out)}")
    return kept, left_out


def _refuse_other_thresholds(candidates: Sequence[Candidate]) -> None:
    if found := scoring_differences(candidates):
        raise RunError(
            f"{found[0]}, so half of their metrics mean different things. Evaluate them again at "
            "one: ml-core evaluate RUN --set evaluation.threshold=0.5"
        )


def _refuse_mixed(groups: Sequence[Group], *, of_a_study: bool) -> None:
    runs = [group.runs[0] for group in groups]
    found = data_differences(runs) + ([] if of_a_study else config_differences(runs))
    if found:
        raise RunError(
            "these runs differ in more than the seed, so a mean over them would mean nothing:\n"
            + "\n".join(f"  {each}" for each in found)
            + "\nGive runs that differ in the seed only, or have a row for each kind: --mixed"
        )


def _best_first(groups: Sequence[Group], metric: str) -> list[Group]:
    sign = -1 if HIGHER_IS_BETTER[metric] else 1

    def place(group: Group) -> tuple[float, tuple[float, float, str]]:
        mean = null_if_nan(_spreads(group)[metric].mean)
        return float("inf") if mean is None else sign * mean, group.simplicity

    return sorted(groups, key=place)


def _spreads(group: Group) -> dict[str, Spread]:
    found = spreads_of([run.scores for run in group.runs if run.scores is not None])
    return {name: found[name] for name in HIGHER_IS_BETTER if name in found}


def _describe(groups: Sequence[Group]) -> list[dict[str, Any]]:
    labels = label_groups(groups) if len(groups) > 1 else [""]
    return [
        {
            "label": label,
            "n": len(group.runs),
            "seeds": group.seeds,
            "runs": [str(run.run.path) for run in group.runs],
            "metrics": {
                name: {key: _number(value) for key, value in dataclasses.asdict(spread).items()}
                for name, spread in _spreads(group).items()
            },
            "also_differ_in": provenance_differences(group.runs),
        }
        for label, group in zip(labels, groups, strict=True)
    ]


def _number(value: float) -> float | None:
    return value if isinstance(value, int) else null_if_nan(value)


def _mixed_in(groups: Sequence[Group]) -> list[str]:
    runs = [group.runs[0] for group in groups]
    return data_differences(runs) + config_differences(runs)


def _compare_best_two(groups: Sequence[Group], metric: str) -> dict[str, Any] | None:
    """Return the paired differences of the best runs of the first two groups.

    Or why there are none: other validation patches, or predictions that are gone.
    """
    if len(groups) < 2:
        return None
    best = [_best_run(group, metric) for group in groups[:2]]
    found: dict[str, Any] = {"runs": [str(run.run.path) for run in best]}
    try:
        tables = [load_predictions(run) for run in best]
        (a, b), names = tables, " and ".join(run.name for run in best)
        check_same_patches(a.index, a.labels, b.index, b.labels, names)
    except RunError as error:
        return {**found, "why_not": str(error)}
    if 0 < a.labels.sum() < len(a):
        first, second = (
            Contender(run.name, table.y_prob, _scores(run)["threshold"], table.nll)
            for run, table in zip(best, tables, strict=True)
        )
        num_resamples = int(_scores(best[0]).get("num_resamples", 1000))
        differences = paired_differences(a.labels, first, second, num_resamples=num_resamples)
        return {**found, "num_patches": len(a), "metrics": differences}
    return {**found, "why_not": "the validation patches are of one class"}


def _best_run(group: Group, metric: str) -> Candidate:
    sign = 1 if HIGHER_IS_BETTER[metric] else -1

    def value(run: Candidate) -> float:
        found = _scores(run)["metrics"][metric]["value"]
        return float("-inf") if found is None else sign * float(found)

    return max(sorted(group.runs, key=lambda run: run.name), key=value)


def _scores(run: Candidate) -> Any:
    assert run.scores is not None, "runs without scores were left out"
    return run.scores


def _say(result: dict[str, Any], groups: Sequence[Group], left_out: Sequence[LeftOut]) -> None:
    first, metric = groups[0], result["metric"]
    n = int(_scores(first.runs[0])["n"])
    if len(groups) == 1:
        many = f"{len(first.runs)} runs" if len(first.runs) > 1 else "one run, no spread"
        logger.info("%s, %s, on %s, %s patches", many, seeds_in_words(first.seeds), SPLIT, f"{n:,}")
        logger.info("%s", render_spreads(_spreads(first)))
    else:
        logger.info("%d groups on %s, the best mean %s first", len(groups), SPLIT, metric)
        labels = [group["label"] for group in result["groups"]]
        logger.info("%s", render_groups(labels, [_spreads(group) for group in groups], metric))
        _say_paired(result["paired"], metric)
    if any(len(group.runs) > 1 for group in groups):
        logger.info(
            "sd: from one seed to another. 95 % of the mean: where the mean over many seeds would "
            "lie, on these patches."
        )
    for described in result["groups"]:
        for each in described["also_differ_in"]:
            logger.warning("within %s: %s", described["label"] or "these runs", each)
    logger.info("used")
    for place, group in enumerate(groups, start=1):
        for run in group.runs:
            value = _scores(run)["metrics"][metric]["value"]
            said = "undefined" if value is None else f"{value:.4f}"
            number = f"{place}. " if len(groups) > 1 else ""
            logger.info(
                "  %sseed %d  %s %s  %s", number, run.record.seed, metric, said, shown(run.run.path)
            )
    if left_out:
        logger.info("not used\n%s", listed(left_out))


def _write(out: Path, result: dict[str, Any]) -> None:
    try:
        write_json(out, result)
    except OSError as error:
        raise RunError(
            f"cannot write {out}: {error.strerror or error}. Give a file in a folder that you may "
            "write to: --out."
        ) from error


def _named(run: Path) -> str:
    """Return the name of a run, and that of its trial where every trial's run is called "run"."""
    return f"trial {run.parent.name}" if run.name == "run" else run.name


def _say_paired(paired: dict[str, Any], metric: str) -> None:
    names = [_named(Path(run)) for run in paired["runs"]]
    if "why_not" in paired:
        logger.warning("1. and 2. cannot be compared patch by patch: %s", paired["why_not"])
        return
    logger.info("the best run of 1. (%s) against that of 2. (%s), patch by patch", *names)
    logger.info("%s", render_differences("1.", "2.", paired["metrics"]))
    logger.info("This tells these two models apart, not what other seeds of the two would give.")
