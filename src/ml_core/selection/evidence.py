"""What speaks for the champion: better than every baseline, and better than the runner-up?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.errors import MLCoreError, RunError
from ml_core.findings import Finding
from ml_core.metrics import compute_intervals, compute_metrics
from ml_core.runs import RunDir
from ml_core.selection.groups import recipe
from ml_core.selection.operating_point import Ready
from ml_core.selection.paired import Contender, Ints, is_better, paired_differences
from ml_core.selection.rules import Choice
from ml_core.selection.runs import LeftOut
from ml_core.yaml_file import read_yaml

# In recall, precision and specificity one of the two constant answers is perfect, so the decision
# is judged by a metric that weighs both errors: as the threshold rule does, as nearly as there is.
DECISION_METRICS = {
    "f_beta": "f2",
    "recall": "balanced_accuracy",  # at one and the same recall F2 hardly tells two models apart
    "cost": "balanced_accuracy",  # at a rare prevalence few calls are right, whatever F2 says here
    "fixed": "f2",
    "youden": "balanced_accuracy",
    "specificity": "balanced_accuracy",
}
RANKING_METRIC = "roc_auc"
AREAS = ("roc_auc", "pr_auc")  # what only the order of the patches decides


def decision_metric(threshold_rule: str, beta: float = 2.0) -> str:
    """Return the metric in which the champion's calls must beat every baseline's."""
    if threshold_rule == "f_beta" and beta <= 1:
        return "f1"
    return DECISION_METRICS[threshold_rule]


def compare_with_baselines(
    y_true: Ints,
    champion: Contender,
    baselines: Sequence[Contender],
    decision: str,
    *,
    optimism: float = 0.0,
    num_resamples: int,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return for each baseline {"metrics", "threshold", "differences", "beaten"}.

    A baseline is beaten where the whole 95 % interval of the paired difference is on the
    champion's side, both in ROC-AUC and in the `decision` metric, each at its own threshold. From
    the latter difference `optimism` is taken off: what the champion gained by having its threshold
    chosen on these very patches. The highest F2 is never below that of always positive otherwise,
    not even of a model that knows nothing. What fitted baselines gained that way is left to them.
    """
    found = {}
    for baseline in baselines:
        differences = paired_differences(
            y_true,
            champion,
            baseline,
            (RANKING_METRIC, decision),
            num_resamples=num_resamples,
            seed=seed,
        )
        differences[decision] = _lowered(differences[decision], optimism)
        metrics = compute_metrics(y_true, baseline.y_prob, baseline.threshold, nll=baseline.nll)
        found[baseline.name] = {
            "metrics": metrics,
            "threshold": baseline.threshold,
            "differences": differences,
            "beaten": all(is_better(name, each) for name, each in differences.items()),
        }
    return found


def refuse_unless_all_are_beaten(
    champion: str, comparisons: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise RunError naming each baseline that is not beaten, both values and the interval."""
    lines = [
        f"  {name}: {metric} {_number(each['value'])} against {_number(each['other'])}, "
        f"difference {_number(each['difference'])} ({_number(each['low'])} to "
        f"{_number(each['high'])})"
        for name, comparison in comparisons.items()
        if not comparison["beaten"]
        for metric, each in comparison["differences"].items()
        if not is_better(metric, each)
    ]
    if lines:
        raise RunError(
            f"there is no champion: {champion}, the best by the rule, does not beat every baseline "
            "on validation. Its threshold was chosen there, so what that gained is taken off. Not "
            "above 0 with their whole 95 % interval are:\n"
            + "\n".join(lines)
            + "\nA model that a constant or colours can match is of no use. Train longer, try "
            "another learning rate or model, or validate on more patches, which narrows the "
            "intervals; then select again."
        )


def compare_with_runner_up(
    y_true: Ints,
    champion: Contender,
    runner_up: Contender,
    metric: str,
    *,
    num_resamples: int,
    seed: int = 0,
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """Return the paired differences in every metric, and a finding where `metric` is a toss-up."""
    differences = paired_differences(
        y_true, champion, runner_up, num_resamples=num_resamples, seed=seed
    )
    each = differences[metric]
    if is_better(metric, each):
        return differences, []
    message = (
        f"The champion is a coin toss: {metric} {_number(each['value'])} against "
        f"{_number(each['other'])} of the runner-up {runner_up.name}, difference "
        f"{_number(each['difference'])} (95 % interval {_number(each['low'])} to "
        f"{_number(each['high'])}, p {_number(each['p_value'])}, {each['test']}). On other patches "
        "it could be the other way round."
    )
    action = "Take the simpler one (selection.rule: one_standard_error), or train more seeds."
    return differences, [Finding("coin-toss", "warning", message, action)]


def evidence_of(
    choice: Choice, best: Ready, left_out: Sequence[LeftOut], num_resamples: int, seed: int
) -> dict[str, Any]:
    """Return what is known of the champion on validation, and of the others beside it.

    "metrics" are of the calibrated probabilities at its threshold, both fitted on these patches;
    what the threshold will give on others is in champion.json's "threshold".
    """
    table = best.calibrated
    values = compute_metrics(table.labels, table.y_prob, best.threshold, nll=table.nll)
    intervals = compute_intervals(
        table.labels, table.y_prob, best.threshold, num_resamples, seed=seed, nll=table.nll
    )
    if best.calibration.kind == "isotonic":  # its ties follow these very labels
        raw = best.raw
        values |= {name: compute_metrics(raw.labels, raw.y_prob)[name] for name in AREAS}
        of_raw = compute_intervals(raw.labels, raw.y_prob, 0.5, num_resamples, seed=seed)
        intervals |= {name: of_raw[name] for name in AREAS}
    spread = choice.ranked[0].spread(choice.metric)
    return {
        "split": table.split,
        "num_patches": len(table),
        "metrics": {
            name: {"value": values[name], "low": interval.low, "high": interval.high}
            for name, interval in intervals.items()
        },
        "num_resamples": num_resamples,
        "chosen_for": choice.why,
        "over_seeds": {
            "metric": choice.metric,
            "seeds": choice.ranked[0].group.seeds,
            **dataclasses.asdict(spread),
        },
        "candidates": [
            {
                "place": place,
                "name": run.candidate.name,
                "run_id": run.candidate.record.run_id,
                "seed": run.candidate.record.seed,
                choice.metric: run.metrics[choice.metric],
                "has_learned": run.candidate.has_learned,
            }
            for place, standing in enumerate(choice.ranked, start=1)
            for run in standing.runs
        ],
        "not_used": [{"run": str(each.path), "reason": each.reason} for each in left_out],
    }


def check_choice(choice: Choice, left_out: Sequence[LeftOut] = ()) -> list[Finding]:
    """Return findings about how few seeds, or how many candidates, stand behind a champion."""
    findings = []
    seeds = choice.ranked[0].group.seeds
    if lost := _lost_seeds(choice, left_out):
        message = (
            f"{len(lost)} more runs of the champion's recipe could not be used: "
            + "; ".join(f"{each.path.name}: {each.reason}" for each in lost)
            + ". Its mean is that of the seeds that went well."
        )
        findings.append(Finding("seeds-left-out", "warning", message))
    if len(seeds) == 1:
        message = (
            f"The champion's recipe was trained with one seed ({seeds[0]}), so nothing is known of "
            "its spread: another seed may do worse."
        )
        action = (
            "Confirm it: ml-core train with the config.yaml of its run and --set seeds=[1,2,3], "
            "then select among those runs."
        )
        findings.append(Finding("one-seed", "warning", message, action))
    num_candidates = sum(len(standing.runs) for standing in choice.ranked)
    if num_candidates > 1:
        message = (
            f"The champion is the best of {num_candidates} candidates on the very patches that "
            "its scores are computed on, so they are too good by a little: expect less on new ones."
        )
        action = "Believe the test split: ml-core evaluate champion.json --split test, once."
        findings.append(Finding("best-of-many", "info", message, action))
    return findings


def _lost_seeds(choice: Choice, left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """Return which of the runs that could not be used have the champion's recipe, other seeds."""
    winner = choice.champion.candidate
    lost = []
    for each in left_out:
        try:
            config = read_yaml(RunDir(each.path).config_path)
        except MLCoreError:
            continue
        is_other_seed = config.get("seed") not in choice.ranked[0].group.seeds
        if is_other_seed and recipe(config) == recipe(winner.config):
            lost.append(each)
    return lost


def _lowered(difference: dict[str, Any], optimism: float) -> dict[str, Any]:
    moved = {
        key: None if difference[key] is None else difference[key] - optimism
        for key in ("difference", "low", "high")
    }
    return {**difference, **moved, "optimism": optimism}


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
