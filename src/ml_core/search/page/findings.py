"""What a reader must know before believing the best trial of a study."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ml_core.findings import Finding
from ml_core.page.text import decimal, enumerated, percent, signed
from ml_core.search.axis import Axis
from ml_core.search.page.facts import StudyFacts
from ml_core.search.words import number_of, said

EFFECT_FINDINGS = ("no-effect", "values-alike", "effect-not-tested", "did-not-run")
MIN_FINISHED = 5  # fewer trials have a best value near an edge by chance
EDGE = 0.02  # of a range, on its own scale
MANY_FAILED = 0.2  # of the trials that ended
LONGEST_ERROR = 200  # letters of it that are shown


def study_findings(facts: StudyFacts, comparison: Mapping[str, Any] | None) -> list[Finding]:
    """Return all findings about a study, the worst first.

    `comparison` is of the best with the second trial, as `paired_differences` gives it for the
    study's metric, with `num_patches`; None where there are no predictions to compare.
    """
    findings = [
        *_how_it_stands(facts),
        *_recorded(facts),
        *_effects(facts),
        *_failures(facts),
        *_edges(facts),
        *_not_told_apart(facts, comparison),
    ]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def _how_it_stands(facts: StudyFacts) -> list[Finding]:
    ended = facts.of_state("complete", "pruned", "failed")
    left = facts.record.num_trials - len(ended)
    if left <= 0:
        return []
    message = f"{left} of {facts.record.num_trials} trials have not ended, so the best may change."
    action = f"Go on with it: `ml-core tune --resume {facts.study.path}`."
    return [Finding("not-finished", "warning", message, action)]


def _effects(facts: StudyFacts) -> list[Finding]:
    """Return what is known of effects; before two trials have ended, not that nothing is."""
    too_early = len(facts.of_state("complete", "pruned")) < 2
    return [each for each in facts.effects if not (too_early and each.id == "effect-not-tested")]


def _recorded(facts: StudyFacts) -> list[Finding]:
    """Return what study.json says besides; of effects more is known by now."""
    return [each for each in facts.record.findings if each.id not in EFFECT_FINDINGS]


def _failures(facts: StudyFacts) -> list[Finding]:
    failed = facts.of_state("failed")
    ended = facts.of_state("complete", "pruned", "failed")
    if not failed:
        return []
    causes = Counter(_kind(trial.cause, trial.error) for trial in failed)
    kind, number = causes.most_common(1)[0]
    example = next(each for each in failed if _kind(each.cause, each.error) == kind)
    what = example.cause or "error"
    if example.error:
        what += f": {_first_line(example.error)}"
    if len(failed) == len(ended):
        same = "all for the same cause" if len(causes) == 1 else f"{number} of them for one cause"
        message = f"all {len(failed)} trials that ended failed, {same} ({what})."
        action = "Mend it, try one trial with `ml-core train`, then search anew."
        return [Finding("all-failed", "error", message, action)]
    severity: Any = "warning" if len(failed) >= MANY_FAILED * len(ended) else "info"
    which = enumerated([str(trial.number) for trial in failed[:8]])
    more = f" and {len(failed) - 8} more" if len(failed) > 8 else ""
    most = f"; {number} of them" if len(causes) > 1 else ""
    message = f"{number_of(len(failed), 'trial')} failed ({which}{more}){most}: {what}."
    return [Finding("trials-failed", severity, message, "Their output.log says more.")]


def _kind(cause: str, error: str) -> str:
    """Return an error without its numbers, so that the same at other parameters is the same."""
    return f"{cause} {re.sub(r'[0-9.e+-]+', '#', _first_line(error))}"


def _first_line(error: str) -> str:
    line = (error.strip().splitlines() or [""])[-1 if "Traceback" in error else 0]
    return (line[: LONGEST_ERROR - 1] + "…" if len(line) > LONGEST_ERROR else line).rstrip(".")


def _edges(facts: StudyFacts) -> list[Finding]:
    best = facts.best
    if best is None or len(facts.of_state("complete", "pruned")) < MIN_FINISHED:
        return []
    findings = []
    for axis in facts.axes:
        side = _edge(axis, best.params.get(axis.key))
        if side is None:
            continue
        low, high = _ends(axis)
        findings.append(
            Finding(
                "best-at-edge",
                "warning",
                f"the best trial has {axis.key} {said(best.params[axis.key])}, at the {side} end "
                f"of what was searched ({said(low)} to {said(high)}): better may lie beyond.",
                f"Widen search.space.{axis.key} on that side, unless nothing is allowed there.",
                facts={"parameter": axis.key, "side": side},
            )
        )
    return findings


def _edge(axis: Axis, value: Any) -> str | None:
    """Return "lower" or "upper" where `value` is at an end of a range, or of three numbers."""
    if axis.choices:
        numbers = [each for each in axis.choices if isinstance(each, int | float)]
        numbers = [each for each in numbers if not isinstance(each, bool)]
        if len(numbers) < max(3, len(axis.choices)) or value not in numbers:
            return None
        return {min(numbers): "lower", max(numbers): "upper"}.get(value)
    place = axis.place(value)
    if not math.isfinite(place) or EDGE < place < 1 - EDGE:
        return None
    return "lower" if place <= EDGE else "upper"


def _ends(axis: Axis) -> tuple[Any, Any]:
    return (min(axis.choices), max(axis.choices)) if axis.choices else (axis.low, axis.high)


def _not_told_apart(facts: StudyFacts, comparison: Mapping[str, Any] | None) -> list[Finding]:
    best, second = facts.best, facts.second
    if comparison is None or best is None or second is None:
        return []
    low, high = comparison["low"], comparison["high"]
    if low is None or high is None or not low <= 0 <= high:
        return []
    return [
        Finding(
            "best-not-told-apart",
            "warning",
            f"the best, trial {best.number}, is not better than the second, trial {second.number}, "
            f"beyond chance: {facts.label} differs by {signed(comparison['difference'], 4)} "
            f"({percent(0.95, 0)} interval {signed(low, 4)} to {signed(high, 4)}, "
            f"{comparison['test']}, p = {decimal(comparison['p_value'], 2)}) on the same "
            f"{comparison['num_patches']:,} patches of valid.",
            "Confirm both with seeds, or prefer the simpler one.",
        )
    ]
