"""How the champion is chosen: the section `selection` that the candidates' configs agree on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.config import Config, SelectionConfig
from ml_core.errors import RunError
from ml_core.evaluation.threshold import ThresholdRule
from ml_core.log import shown
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.selection.runs import Candidate

PREFIX = "selection."


@dataclass(frozen=True)
class SelectionSettings:
    """The rules, and what is set anew for the runs themselves, such as where the data are."""

    selection: SelectionConfig
    rule: ThresholdRule
    num_resamples: int
    run_overrides: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the section as champion.json keeps it."""
        return self.selection.model_dump(mode="json")


def load_settings(candidates: Sequence[Candidate], overrides: Iterable[str]) -> SelectionSettings:
    """Return what all candidates' configs say, with `overrides`.

    Raises RunError where two differ in a key of `selection` that is not overridden, ConfigError for
    an override that is neither of `selection` nor allowed for a trained run.
    """
    overrides = list(overrides)
    for_rule = [each for each in overrides if each.strip().startswith(PREFIX)]
    for_runs = [each for each in overrides if each not in for_rule]
    first, *others = candidates
    config = load_run_config(first.run, for_runs)
    chosen = _rules(first, for_rule)
    for other in others:
        if differing := _differing(chosen, _rules(other, for_rule)):
            key, here, there = differing[0]
            raise RunError(
                f"the runs do not agree on how to choose: {key} is {here} in "
                f"{shown(first.run.path)} and {there} in {shown(other.run.path)}. "
                "Say which counts: " + " ".join(f"--set {key}=..." for key, *_ in differing)
            )
    threshold = chosen.selection.threshold
    return SelectionSettings(
        selection=chosen.selection,
        rule=ThresholdRule(
            kind=threshold.rule,
            beta=threshold.beta,
            at_least=threshold.at_least,
            cost_false_negative=threshold.cost_false_negative,
            cost_false_positive=threshold.cost_false_positive,
            prevalence=chosen.selection.deployment_prevalence,
            value=chosen.evaluation.threshold if threshold.rule == "fixed" else 0.5,
        ),
        num_resamples=config.evaluation.num_resamples,
        run_overrides=tuple(for_runs),
    )


def _rules(candidate: Candidate, overrides: Sequence[str]) -> Config:
    return Config.load(candidate.run.config_path, overrides)


def _differing(a: Config, b: Config) -> list[tuple[str, Any, Any]]:
    """Return (key, value, other value) of what decides a choice and differs."""
    left, right = _flat(a), _flat(b)
    return [(key, left[key], right[key]) for key in left if left[key] != right[key]]


def _flat(config: Config) -> dict[str, Any]:
    section = config.selection.model_dump(mode="json")
    threshold = section.pop("threshold")
    flat = {f"{PREFIX}{key}": value for key, value in section.items()}
    flat |= {f"{PREFIX}threshold.{key}": value for key, value in threshold.items()}
    if threshold["rule"] == "fixed":
        flat["evaluation.threshold"] = config.evaluation.threshold
    return flat
