"""The model card: what the files of a run say about its model, as Markdown."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.champion_page import CALIBRATION_LABELS, champion_findings
from ml_core.evaluation.report.failures_files import Content, read_contents
from ml_core.evaluation.report.markdown import (
    cell_code,
    code,
    difference,
    interval,
    link,
    markdown,
    p_value,
    points,
)
from ml_core.evaluation.report.page import SplitRow, worst_first
from ml_core.evaluation.report.run_facts import RunFacts
from ml_core.evaluation.report.scores import (
    BASELINE_LABELS,
    ScoreRow,
    check_baselines,
    describe_baselines,
    score_rows,
)
from ml_core.evaluation.threshold import ChosenThreshold
from ml_core.findings import Finding
from ml_core.page import text

MOST_SLICES = 10  # of those that are worse than the rest; the file has all
# What each file tells: the heading, the keys that lead to the part, and the macro that writes it.
PARTS: dict[str, Sequence[tuple[str, tuple[str, ...], str]]] = {
    "slices": (
        ("Slices", (), "slices"),
        ("Slices that a search found", ("discovery",), "discovery"),
        ("Shortcuts", ("shortcuts",), "shortcuts"),
    ),
    "errors": (("Errors", (), "errors"),),
    "uncertainty": (("Uncertainty", (), "uncertainty"),),
    "explain": (
        ("Centre and surroundings", ("visibility",), "visibility"),
        ("Attribution", ("saliency",), "saliency"),
        ("Robustness", ("robustness",), "robustness"),
    ),
}
STANDINGS = {
    "better": "better than each",
    "overlaps": "not better than each",
    "worse": "worse than one",
    "": "–",
}


def render_model_card(facts: RunFacts, openings: str | None = None) -> str:
    """Return the model card of a run as Markdown, to be written where `facts` were read for.

    Its parts follow Mitchell et al., Model Cards for Model Reporting, FAT* 2019. Every number
    stands under a link to the file that it was read from, and no sentence about results is written
    here: what no file holds is said to be not measured, with the command that measures it.
    `openings` is the sentence on how often the test set was opened, as counted now; without it, as
    of when it was scored. The same files give the same bytes.
    """
    template = _template()
    splits = ["valid", "test"] if facts.test is not None else ["valid"]
    contents = {split: read_contents(facts, split) for split in splits}
    card: Any = template.module
    parts = [
        card.details(facts),
        card.use(facts, _threshold_rule(facts)),
        card.data(facts, _data_rows(facts)),
        _scores(card, facts),
        card.champion(facts),
        _test(card, facts, openings),
        *(_failures(card, facts, split, contents[split]) for split in splits),
        card.caveats(_caveats(facts, contents), facts.folder),
    ]
    return f"{_joined(parts)}\n"


def _scores(card: Any, facts: RunFacts) -> str:
    """Return the scores of validation beside every baseline."""
    arguments = _score_arguments(facts.valid.scores)
    said = describe_baselines(facts.valid.scores) if facts.valid.scores else ""
    return str(card.scores("Validation", facts, facts.valid, *arguments, said))


def _test(card: Any, facts: RunFacts, openings: str | None) -> str:
    """Return the scores of the test split, or "" where it was never opened for this run."""
    if facts.test is None:
        return ""
    scores = facts.test.scores
    said = openings or (scores["openings"]["said"] if scores else "")
    return str(card.scores("Test", facts, facts.test, *_score_arguments(scores), "", said))


def _score_arguments(scores: Mapping[str, Any] | None) -> tuple[Any, ...]:
    rows: list[ScoreRow] = score_rows(scores) if scores else []
    baselines = {name: BASELINE_LABELS[name] for name in (rows[0].baselines if rows else ())}
    return scores, rows, baselines


def _failures(card: Any, facts: RunFacts, split: str, contents: Mapping[str, Content]) -> str:
    """Return where the model fails on `split`, part after part, each from its own file."""
    parts = [card.failures_heading(split)]
    for what, told in PARTS.items():
        if what not in contents:
            continue
        content = contents[what]
        if content.values:
            parts += [_told(card, content, *each, facts.folder) for each in told]
        else:
            parts.append(card.not_shown([title for title, _, _ in told], content))
    return _joined(parts)


def _told(
    card: Any, content: Content, title: str, keys: Sequence[str], macro: str, folder: str
) -> str:
    """Return one part of a file that was read, or that it cannot be shown and what to do."""
    part = _part_of(content.values, keys)
    if part is None:
        return str(card.not_measured(title, content))
    try:
        return str(getattr(card, macro)(title, content, part, folder))
    except (jinja2.UndefinedError, AttributeError, TypeError, ValueError) as error:
        return str(card.not_readable(title, content, error, folder))


def _part_of(values: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Return the part to which `keys` lead, or None where it was not measured."""
    part: Any = values
    for key in keys:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def _data_rows(facts: RunFacts) -> list[SplitRow]:
    splits = dict(facts.record.data)
    if facts.test is not None and facts.test.scores is not None:
        splits["test"] = facts.test.scores["data"]
    return [SplitRow(name, dict(record)) for name, record in splits.items()]


def _threshold_rule(facts: RunFacts) -> str:
    """Return in words how the champion's threshold was chosen; "" for a run that none chose."""
    if facts.champion is None:
        return ""
    return str(ChosenThreshold.from_dict(facts.champion["threshold"]).rule)


def _caveats(
    facts: RunFacts, contents: Mapping[str, Mapping[str, Content]]
) -> list[tuple[str, list[Finding]]]:
    """Return the findings, worst first, under the name of the file that they are from.

    "" names those that came up in reading the files against each other.
    """
    groups: dict[str, list[Finding]] = {"run.json": list(facts.record.findings)}
    if facts.champion is not None:
        groups[facts.champion_file[0]] = champion_findings(facts.champion, facts.test is not None)
    if facts.test is not None and facts.test.scores is not None:
        written = [Finding(**each) for each in facts.test.scores["findings"]]
        groups[facts.test.scores_file.name] = groups.get(facts.test.scores_file.name, []) + written
    for of_split in contents.values():
        for content in of_split.values():
            groups[content.name] = groups.get(content.name, []) + list(content.findings)
    said = [finding for findings in groups.values() for finding in findings]
    rows = score_rows(facts.scores) if facts.scores else []
    others = [*facts.findings, *(facts.test.findings if facts.test else []), *check_baselines(rows)]
    groups[""] = [finding for finding in others if finding not in said]
    return [(name, worst_first(_once(findings))) for name, findings in groups.items() if findings]


def _joined(parts: Sequence[object]) -> str:
    """Return the parts that say something, a blank line between each two."""
    return "\n\n".join(stripped for part in parts if (stripped := str(part).strip()))


def _once(findings: Sequence[Finding]) -> list[Finding]:
    return [each for place, each in enumerate(findings) if each not in findings[:place]]


@functools.cache
def _template() -> jinja2.Template:
    """Return the macros; what they fill in is escaped for Markdown, by `markdown`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ml_core.evaluation.report", "."),
        autoescape=True,
        finalize=markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        text.decimal, text.signed, text.count, text.percent, text.duration, text.moment,
        text.short_hash, text.plain, cell_code, code, difference, interval, link, p_value, points,
    )  # fmt: skip
    for function in filters:
        environment.filters[function.__name__] = function
    environment.filters["quoted"] = shlex.quote
    environment.globals.update(
        most_slices=MOST_SLICES,
        metric_labels=METRIC_LABELS,
        calibration_labels=CALIBRATION_LABELS,
        standings=STANDINGS,
    )
    return environment.get_template("model_card.md.j2")
