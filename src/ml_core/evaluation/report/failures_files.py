"""What of slices.json, errors.json, uncertainty.json and explain.json the page can use."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_core.evaluation.report.run_facts import FAILURE_FILES, RunFacts
from ml_core.evaluation.report.split_facts import SplitFacts
from ml_core.findings import SEVERITIES, Finding

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
    def ids(self) -> set[str]:
        """The ids of its findings."""
        return {finding.id for finding in self.findings}


def read_contents(facts: RunFacts, split: str) -> dict[str, Content]:
    """Return the contents by what they are, "slices" to "explain".

    What is not of the weights, the patches or the split that the scores of `split` are of, is a
    finding: it would say of one model where another fails.
    """
    return {what: _content(facts, what, split) for what in FAILURE_FILES}


def _content(facts: RunFacts, what: str, split: str) -> Content:
    name = facts.run.result_path(what, split).name
    command = f"ml-core {STAGES[what]} {shlex.quote(str(facts.run.path))}"
    if split != "valid":
        command += f" --split {split}"
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
    findings = [*_mismatches(name, command, values, split, scored), *_own_findings(values)]
    return Content(name, command, values, findings=tuple(findings))


def _mismatches(
    name: str, command: str, values: Mapping[str, Any], split: str, scored: SplitFacts | None
) -> list[Finding]:
    """Return an error for each way in which the content is of something else than the scores."""
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
    if not wrong:
        return []
    against = scored.scores_file.name if scored is not None else "the scores"
    message = f"{name} is not of what {against} is of: {'; '.join(wrong)}. Again: {command}"
    return [Finding(f"{name.split('.')[0]}-of-another-model", "error", message)]


def _short(value: Any) -> str:
    return str(value)[:12] if value else "not recorded"


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
