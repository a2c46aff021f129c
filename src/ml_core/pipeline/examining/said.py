"""What `slice` and `explain` say on the command line: the worst first, the rest is in the files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.page.text import decimal, percent, signed

logger = logging.getLogger("ml_core.slice")

_MOST_SHOWN = 5


def say_slices(content: Mapping[str, Any]) -> None:
    """Say which slices are worse than the rest, and what the search found."""
    worse = [each for each in content["slices"] if each["standing"] == "worse"]
    small = sum(each["standing"] == "not scored" for each in content["slices"])
    if content["num_tested"]:
        unscored = f"; {small} more too small to be scored" if small else ""
        tested = content["num_tested"]
        logger.info("%d of %d slices are worse than the rest%s", len(worse), tested, unscored)
    else:
        logger.warning("no slice can be scored: all %d are too small, or hold every patch", small)
    for each in worse[:_MOST_SHOWN]:
        _say(each["said"] or each["name"], each["n"], each["differences"]["error"])
    _warn([finding for finding in content["findings"] if finding["id"] == "slices-empty"])
    discovery = content["discovery"]
    if discovery is None:
        return
    if discovery["num_suggested"] == 0:
        logger.info("searched: nothing suggests a slice that fails more often")
        return
    found = [each for each in discovery["slices"] if each["is_confirmed"]]
    logger.info(
        "searched: %d of %d suggested slices fail more often on patches that did not suggest them",
        len(found), discovery["num_suggested"],
    )  # fmt: skip
    for each in found[:_MOST_SHOWN]:
        name = each["where"] or each["said"] or each["name"]
        confirmed = each["confirmed"]
        difference = {**confirmed["difference"], "q": confirmed["q"]}
        _say(name, confirmed["n"], difference, each["target"], "n held out")


def say_errors(errors: Mapping[str, Any]) -> None:
    """Say how many errors there are, and how many look like errors of the label."""
    logger.info(
        "%s errors: %s false alarms, %s missed tumours; at %s of them the label is in doubt",
        *(
            f"{number:,}"
            for number in (
                errors["num_errors"],
                errors["false_positives"],
                errors["false_negatives"],
                errors["doubtful_labels"]["n"],
            )
        ),
    )


def say_uncertainty(uncertainty: Mapping[str, Any]) -> None:
    """Say what leaving the doubtful patches to a person would give."""
    abstention = uncertainty["abstention"]
    if abstention is None:
        logger.info("no abstention: %s", uncertainty["why_no_abstention"])
        return
    logger.info(
        "left to a person from %s to %s (%s of patches), the error on the rest is %s (%s to %s)",
        decimal(abstention["below"]),
        decimal(abstention["above"]),
        percent(1 - abstention["coverage"]),
        percent(abstention["risk"]["value"]),
        percent(abstention["risk"]["low"]),
        percent(abstention["risk"]["high"]),
    )


def say_explained(content: Mapping[str, Any]) -> None:
    """Say where the model looks, what the centre is worth, and what unsettles it most."""
    area = percent(content["saliency"]["centre"]["share_of_area"])
    for name, method in content["saliency"]["methods"].items():
        if "why_not" not in method:
            logger.info(
                "%s: %s of what decides lies in the central %s, with random weights %s",
                name.replace("_", " "),
                percent(method["share_in_centre"]["value"]),
                area,
                percent(method["random_weights"]["value"]),
            )
    views = content["visibility"]["views"]
    for view, scores in views.items():
        _say_score(view.replace("_", " "), scores["metrics"]["roc_auc"])
    for key, words in {
        "worst": "unsettled most by",
        "worst_in_train_range": "among patches that look like train's by",
    }.items():
        fall = content["robustness"][key]
        if fall is not None:
            _say_score(
                f"{words} {fall['name']} ({fall['label']})", fall["difference"], is_change=True
            )
    parts = [content, *(content[part] for part in ("saliency", "visibility", "robustness"))]
    _warn([finding for part in parts for finding in part["findings"]])


def _warn(findings: Sequence[Mapping[str, Any]]) -> None:
    """Say what a reader must know; notes are in the file and on the page."""
    for finding in findings:
        if finding["severity"] != "info":
            logger.warning("%s", finding["message"])


def _say_score(what: str, score: Mapping[str, float | None], *, is_change: bool = False) -> None:
    say = signed if is_change else decimal
    low, high = score["low"], score["high"]
    logger.info("%s: ROC-AUC %s (%s to %s)", what, say(score["value"]), say(low), say(high))


def _say(
    name: str,
    n: int,
    difference: Mapping[str, float | None],
    what: str = "errors",
    counted: str = "n",
) -> None:
    logger.info(
        "  %s %s (%s to %s), q %s, %s %s: %s",
        _points(difference["value"]),
        what,
        _points(difference["low"]),
        _points(difference["high"]),
        decimal(difference["q"], 4),
        counted,
        f"{n:,}",
        name,
    )


def _points(share: float | None) -> str:
    """Return a difference of shares in percentage points: +0.123 as "+12.3 points"."""
    return "–" if share is None else f"{signed(100 * share, 1)} points"
