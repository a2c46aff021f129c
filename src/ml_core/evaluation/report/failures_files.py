"""What of slices.json, errors.json, uncertainty.json and explain.json the page can use."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ml_core.evaluation.report.run_facts import RunFacts, failure_files
from ml_core.evaluation.report.split_facts import SplitFacts
from ml_core.findings import SEVERITIES, Finding
from ml_core.page.text import enumerated, plain

ANOTHER_MODEL = "-of-another-model"  # the end of the id of a finding
FORMAT = 1  # of these files; another one is not read
STAGES = {"slices": "slice", "errors": "slice", "uncertainty": "slice", "explain": "explain"}


@dataclass(frozen=True)
class Content:
    """One of the files: its name, what it holds, and where it cannot be used, why and what to do.

    `values` is empty where the file cannot be used; `why_not` is then "absent", "damaged" or a
    sentence, and `command` makes the file anew.
    """

    name: str
    command: str
    values: Mapping[str, Any] = field(default_factory=dict)
    why_not: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def is_of_another_model(self) -> bool:
        """Whether it was left out for being of other weights, patches or split than were scored."""
        return any(each.id.endswith(ANOTHER_MODEL) for each in self.findings)

    @property
    def called(self) -> str:
        """From which probability on tumour is called in it, in words; "" where it does not say."""
        if not isinstance(self.values.get("threshold"), int | float):
            return ""
        by = ", as champion.json says" if self.values.get("champion_sha256") else ""
        return f"{say_point(self.values)}{by}"

    @property
    def ids(self) -> set[str]:
        """The ids of its findings."""
        return {finding.id for finding in self.findings}


def read_contents(facts: RunFacts, split: str) -> dict[str, Content]:
    """Return the contents by what they are, "slices" to "explain", which there is none of for test.

    What is not of the weights, the patches or the split that the scores of `split` are of is not
    given, and is a finding: it would say of one model where another fails.
    """
    contents = {what: _content(facts, what, split) for what in failure_files(split)}
    return _with_other_points(facts, contents, split)


def say_point(values: Mapping[str, Any]) -> str:
    """Return the threshold and calibration of a content: "threshold 0.3, isotonic calibration"."""
    threshold, kind, temperature, _ = _numbers(values)
    said = f"threshold {_rounded(threshold, 4)}"
    if kind == "temperature":
        return f"{said}, temperature calibration ({_rounded(temperature, 3)})"
    return said if kind == "none" else f"{said}, {kind} calibration"


def _content(facts: RunFacts, what: str, split: str) -> Content:
    name = facts.run.result_path(what, split).name
    command = _command(facts, what, split)
    values = facts.failures_of(split)[what]
    if values is None:
        states = {file.name: file.state for file in facts.files}
        return Content(name, command, why_not=states.get(name, "absent"))
    if values.get("format") != FORMAT:
        written = values.get("format", "none")
        why = f"of format {written}, and this version reads {FORMAT}"
        message = f"{name} is {why}: nothing is shown of it. Write it again with: {command}"
        finding = Finding("old-format", "warning", message)
        return Content(name, command, why_not=why, findings=(finding,))
    scored = facts.valid if split == "valid" else facts.test
    wrong = _mismatches(values, split, scored)
    if wrong:
        against = scored.scores_file.name if scored is not None else "the scores"
        why = f"not of what {against} is of"
        message = f"{name} is {why}: {'; '.join(wrong)}. Nothing is shown of it."
        id_ = f"{name.split('.')[0]}{ANOTHER_MODEL}"
        finding = Finding(id_, "error", message, f"Write it again with: {command}")
        return Content(name, command, why_not=why, findings=(finding,))
    return Content(name, command, values, findings=tuple(_own_findings(values)))


def _command(facts: RunFacts, what: str, split: str) -> str:
    """Return what makes the file at the operating point of this page.

    That is the champion's where one chose the run; on test nothing else is allowed.
    """
    if split != "valid":
        return f"ml-core {STAGES[what]} {shlex.quote(facts.champion_path)} --split {split}"
    of = facts.champion_path if _sha256(facts.champion) else str(facts.run.path)
    return f"ml-core {STAGES[what]} {shlex.quote(of)}"


def _mismatches(values: Mapping[str, Any], split: str, scored: SplitFacts | None) -> list[str]:
    """Return each way in which the content is of something else than the scores."""
    wrong = []
    if values.get("split") != split:
        wrong.append(f"the split is {values.get('split')}, not {split}")
    scores = scored.scores if scored is not None else None
    if scores is not None:
        ours, theirs = values.get("weights_sha256"), scores.get("weights_sha256")
        if ours != theirs:
            wrong.append(f"the weights are {_short(ours)}, those scored are {_short(theirs)}")
        if values.get("n") != scores.get("n"):
            wrong.append(f"n is {values.get('n')}, scored were {scores.get('n')}")
    return wrong


def _with_other_points(
    facts: RunFacts, contents: Mapping[str, Content], split: str
) -> dict[str, Content]:
    """Return the contents, the first that is of another operating point with a finding on all."""
    here = _point_here(facts, split)
    given = {} if here is None else {what: each for what, each in contents.items() if each.values}
    moved = {
        what: each
        for what, each in given.items()
        if here is not None and _numbers(each.values) != _numbers(here)
    }
    renamed = {
        what: each
        for what, each in given.items()
        if what not in moved and _of_two_champions(facts, each)
    }
    found: dict[str, tuple[Finding, ...]] = {}
    if moved and here is not None:
        found[next(iter(moved))] = (_of_another_point(facts, moved, here),)
    if renamed:
        first = next(iter(renamed))
        found[first] = (*found.get(first, ()), _of_another_champion(facts, renamed))
    return {
        what: replace(each, findings=(*each.findings, *found.get(what, ())))
        for what, each in contents.items()
    }


def _point_here(facts: RunFacts, split: str) -> Mapping[str, Any] | None:
    """Return the threshold and calibration that the page calls by; None without scores."""
    scored = facts.valid if split == "valid" else facts.test
    scores = scored.scores if scored is not None else None
    if scores is None:
        return None
    champion = facts.champion
    if champion is not None and _sha256(champion):
        return {**champion, "threshold": champion["threshold"]["value"]}
    return scores


def _numbers(point: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return all that decides who is called what."""
    written = point.get("calibration")
    calibration = written if isinstance(written, Mapping) else {}
    knots = [list(knot) for knot in calibration.get("knots") or ()]
    kind = calibration.get("kind", "none")
    return point.get("threshold"), kind, calibration.get("temperature", 1.0), knots


def _of_two_champions(facts: RunFacts, content: Content) -> bool:
    ours, theirs = _sha256(facts.champion), content.values.get("champion_sha256")
    return bool(ours and theirs and ours != theirs)


def _of_another_point(
    facts: RunFacts, moved: Mapping[str, Content], here: Mapping[str, Any]
) -> Finding:
    named = "; ".join(
        f"{each.name} is {_whose(each.values)}, at {say_point(each.values)}"
        for each in moved.values()
    )
    whose = "the champion calls at" if _sha256(facts.champion) else "the scores are raw, at"
    return Finding(
        "results-of-another-operating-point",
        "warning",
        f"Not of this page's operating point, which changes who is called what: {named}, where "
        f"{whose} {say_point(here)}.",
        _again(moved),
    )


def _whose(values: Mapping[str, Any]) -> str:
    return "a champion's" if values.get("champion_sha256") else "raw"


def _of_another_champion(facts: RunFacts, renamed: Mapping[str, Content]) -> Finding:
    names: dict[str, list[str]] = {}
    for each in renamed.values():
        names.setdefault(_short(each.values["champion_sha256"], 8), []).append(each.name)
    named = "; ".join(
        f"{enumerated(files)} {'is' if len(files) == 1 else 'are'} of champion {sha256}"
        for sha256, files in names.items()
    )
    return Finding(
        "results-of-another-champion",
        "info",
        f"{named}, this page is of {_short(_sha256(facts.champion), 8)}: threshold and calibration "
        "are the same, so the same patches are called tumour.",
    )


def _again(contents: Mapping[str, Content]) -> str:
    """Return the commands that make them anew, `explain` first: `slice` uses what it writes."""
    commands = sorted({each.command for each in contents.values()})
    return f"Make them again: {' && '.join(commands)}"


def _sha256(champion: Mapping[str, Any] | None) -> str:
    return str((champion or {}).get("sha256") or "")


def _rounded(value: Any, digits: int) -> str:
    return f"{value:.{digits}g}" if isinstance(value, int | float) else plain(value)


def _short(value: Any, length: int = 12) -> str:
    return str(value)[:length] if value else "not recorded"


def _own_findings(values: Mapping[str, Any]) -> list[Finding]:
    """Return the findings that the file brings, at its top and in each of its parts."""
    parts = [values, *(part for part in values.values() if isinstance(part, Mapping))]
    known = set(Finding.__dataclass_fields__)
    return [
        Finding(**{key: value for key, value in each.items() if key in known})
        for part in parts
        for each in part.get("findings") or ()
        if isinstance(each, Mapping) and each.get("severity") in SEVERITIES
    ]
