"""What `select` tells a person: who won, by how much, against whom, and what to doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_core.evaluation.threshold import ChosenThreshold
from ml_core.page.text import decimal, percent, signed
from ml_core.selection.champion import Champion
from ml_core.selection.groups import label_groups
from ml_core.selection.rules import Choice
from ml_core.selection.tables import (
    DIGITS,
    p_value,
    render_groups,
    render_table,
    seeds_in_words,
)

HEADLINE = ("recall", "specificity", "precision", "f2")
MOST_ROWS = 12


def render_summary(choice: Choice, champion: Champion) -> str:
    """Return the candidates in order, then the champion and what speaks for it."""
    return "\n".join(
        [
            *_candidates(choice),
            "",
            *_champion(choice, champion),
            *_runner_up(choice, champion),
            "",
            *_baselines(champion),
        ]
    )


def _candidates(choice: Choice) -> list[str]:
    groups = [standing.group for standing in choice.ranked]
    labels = label_groups(groups) if len(groups) > 1 else [seeds_in_words(groups[0].seeds)]
    metrics = choice.champion.metrics
    shown = choice.ranked[:MOST_ROWS]
    spreads = [{name: each.spread(name) for name in metrics} for each in shown]
    left = len(groups) - len(shown)
    num_runs = sum(len(group.runs) for group in groups)
    more = [f"and {left} more"] if left else []
    return [
        f"{_counted(num_runs, 'run')} of {_counted(len(groups), 'kind')} on valid, in the order of "
        "the rule, each run at its own threshold",
        render_groups(labels[: len(shown)], spreads, choice.metric),
        *more,
    ]


def _champion(choice: Choice, champion: Champion) -> list[str]:
    run, calibration = champion.run, champion.calibration
    threshold = ChosenThreshold.from_dict(champion.threshold)
    before, after = calibration["before"], calibration["after"]
    lines = [
        f"champion   {run['name']}, seed {run['seed']}, weights {run['weights_sha256'][:12]} of "
        f"epoch {run['epoch']}",
        f"  why        {choice.why}",
        f"  threshold  {threshold.value:.4g}: {threshold.rule}; on new patches it will give",
        *_indented(_expected(threshold)),
        *(f"    {note}" for note in threshold.notes),
    ]
    if calibration["note"]:
        lines.append(f"    {calibration['note']}")
    if calibration["kind"] != "none":
        lines.append(
            f"  {calibration['kind']:9}  calibration error {decimal(before['ece'])} before and "
            f"{decimal(after['ece'])} after, {decimal(after['ece_by_chance'])} by chance"
        )
    if (shift := champion.prior_shift) is not None:
        worth = ", ".join(f"{name.upper()} {_range(shift[name])}" for name in ("ppv", "npv"))
        lines.append(f"  where {percent(shift['to_prevalence'])} of patches are tumour: {worth}")
    return lines


def _expected(threshold: ChosenThreshold) -> str:
    rows = []
    for name in HEADLINE:
        here, half = threshold.expected[name], threshold.at_half[name]
        rows.append(
            (
                name,
                decimal(here["value"], DIGITS),
                f"{decimal(here['low'], DIGITS)} to {decimal(here['high'], DIGITS)}",
                decimal(half["value"], DIGITS),
            )
        )
    return render_table(("", "value", "95 % interval", "at 0.5"), rows, left=(0, 2))


def _runner_up(choice: Choice, champion: Champion) -> list[str]:
    if champion.runner_up is None:
        return ["runner-up  none: there was one candidate"]
    each = champion.runner_up["differences"][choice.metric]
    return [
        f"runner-up  {champion.runner_up['run']['name']}, {choice.metric} "
        f"{decimal(each['other'], DIGITS)}: the champion is {signed(each['difference'], DIGITS)} "
        f"({signed(each['low'], DIGITS)} to {signed(each['high'], DIGITS)}), "
        f"p {p_value(each['p_value'])}, {each['test']}"
    ]


def _baselines(champion: Champion) -> list[str]:
    """Return a row for each baseline: its scores, and how far the champion is above them."""
    first = next(iter(champion.baselines.values()))
    metrics = list(first["differences"])
    header = ["baseline"]
    for metric in metrics:
        header += [metric, "champion is above by"]
    rows = []
    for name, baseline in champion.baselines.items():
        row = [name]
        for metric in metrics:
            each = baseline["differences"][metric]
            row += [
                decimal(each["other"], DIGITS),
                f"{signed(each['difference'], DIGITS)} ({signed(each['low'], DIGITS)} to "
                f"{signed(each['high'], DIGITS)})",
            ]
        rows.append(row)
    decision, optimism = metrics[-1], first["differences"][metrics[-1]]["optimism"]
    return [
        render_table(header, rows, left=(0, *range(2, len(header), 2))),
        f"of {decision} the {decimal(optimism, DIGITS)} is taken off that choosing the threshold "
        "on these patches gained",
    ]


def _range(estimate: Mapping[str, Any]) -> str:
    value, low, high = (decimal(estimate[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
