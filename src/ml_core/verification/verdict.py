"""What a verification found: how much was compared, what differs, and whether that is the same run.

The bits decide. Where they are the same, another commit, package or machine is said and forgiven;
where they are not, the first difference in the order of KINDS is the one to look at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ml_core.errors import RunError
from ml_core.runs import RunDir, read_jsonl
from ml_core.verification.differences import Difference, Kind

# Of a replay: the record itself must be what was run. Of two runs, configs may differ.
BINDING_FOR_REPLAY: tuple[Kind, ...] = ("config", "data", "numerics")
BINDING_FOR_TWO: tuple[Kind, ...] = ("data", "numerics")

NOW = "now"  # the other side of a replay
_NO_WEIGHTS = "weights were not compared: no digest of them is on record of these steps"
MOST_SHOWN = 4  # differences of a kind that are said one by one


@dataclass(frozen=True)
class Compared:
    """What both sides have on record: steps (loss and gradient norm), links, epochs (scores).

    `of_steps` is how many the longer one has logged; `checkpoints` how many, of those that a run
    has kept up to `last_step`, hold the weights that a link has on record.
    """

    first_step: int
    last_step: int
    steps: int
    links: int
    epochs: int
    of_steps: int = 0
    checkpoints: int = 0

    def __str__(self) -> str:
        share = f" of {self.of_steps:,}" if self.of_steps > self.steps else ""
        where = f"step {self.first_step:,}"
        if self.steps > 1:
            where = f"{self.first_step:,} to {self.last_step:,}"
        text = f"{self.steps:,}{share} step{'s' * (self.steps > 1 or bool(share))} ({where}): "
        text += "every loss and gradient norm"
        if self.links:
            text += f", {self.links:,} digest{'s' * (self.links > 1)} of weights and optimizer"
        if self.epochs:
            text += f", the scores of {self.epochs:,} epoch{'s' * (self.epochs > 1)}"
        if self.checkpoints:
            text += f", the weights in {self.checkpoints} checkpoint{'s' * (self.checkpoints > 1)}"
        return text


@dataclass(frozen=True)
class Verdict:
    """Whether `here` is `there` again.

    `differences` in the order of KINDS, but that which decided goes first where it has no cause
    among them: an edit, or a changed file that met no bit yet.
    """

    here: str
    there: str
    identical: bool
    compared: Compared
    differences: Sequence[Difference]

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        differences = [each.to_dict() for each in self.differences]
        return {
            "status": "identical" if self.identical else "different",
            "here": self.here,
            "there": self.there,
            "compared": asdict(self.compared),
            "first_difference": differences[0] if differences else None,
            "differences": differences,
        }


def judge(
    here: str,
    there: str,
    compared: Compared,
    differences: Sequence[Difference],
    binding: Collection[Kind],
) -> Verdict:
    """Return the verdict: not identical where a difference is of a `binding` kind.

    Raises RunError where no step was compared, since then nothing was shown.
    """
    if compared.steps == 0:
        raise RunError(
            f"{here} and {there} have no logged step in common, so nothing can be shown of their "
            "bits. Verify runs that have trained, with their steps.jsonl."
        )
    decided = [each for each in differences if each.kind in binding and not each.is_unknown]
    if any(each.kind == "numerics" and not each.is_edit for each in decided):
        decided = [each for each in differences if not (each.is_harmless or each.is_unknown)]
    first = decided[:1]
    ordered = [*first, *(each for each in differences if each not in first)]
    return Verdict(here, there, not decided, compared, ordered)


def compute_compared(a: RunDir, b: RunDir, after_step: int = 0) -> Compared:
    """Return what of the logs of `a` and `b` lies beyond `after_step` in both."""
    logged = [_steps_in(run.steps_log_path) for run in (a, b)]
    steps = _beyond(after_step, logged)
    return Compared(
        first_step=min(steps, default=0),
        last_step=max(steps, default=0),
        steps=len(steps),
        links=len(_beyond(after_step, [_steps_in(run.chain_path) for run in (a, b)])),
        epochs=len(_beyond(after_step, [_steps_in(run.metrics_log_path) for run in (a, b)])),
        of_steps=max(set.union(*logged), default=0),
    )


def _steps_in(log: Path) -> set[int]:
    return {record["step"] for record in read_jsonl(log) if "step" in record}


def _beyond(after_step: int, logged: Sequence[set[int]]) -> set[int]:
    """Return the later steps that all of the logs have a line for."""
    return {step for step in set.intersection(*logged) if step > after_step}


def render_verdict(verdict: Verdict) -> str:
    """Return the verdict in words: what was compared, then what differs and what to do."""
    unseen = [] if verdict.compared.links else [_NO_WEIGHTS]
    if verdict.identical:
        lines = [f"identical: {verdict.compared}, bit for bit", *unseen]
        if verdict.differences:
            lines += ["these differ, and changed no bit of it:"]
            lines += _indented(_listed(verdict.differences, verdict))
        return "\n".join(lines)
    first, *others = verdict.differences
    lines = [f"not identical; the first difference is of {first.kind}:"]
    lines += _indented([_in_words(first, verdict), first.advice])
    if others:
        lines += ["besides:", *_indented(_listed(others, verdict))]
    no_bit_differs = all(each.kind != "numerics" for each in verdict.differences)
    equal = "; all of it the same, bit for bit" if no_bit_differs else ""
    lines += [f"compared: {verdict.compared}{equal}", *unseen]
    return "\n".join(lines)


def _listed(differences: Sequence[Difference], verdict: Verdict) -> list[str]:
    """Return a line for each difference, but for those beyond MOST_SHOWN of a kind, which count."""
    lines = []
    for kind, alike in groupby(differences, key=lambda each: each.kind):
        members = list(alike)
        lines += [_in_words(each, verdict) for each in members[:MOST_SHOWN]]
        if len(members) > MOST_SHOWN:
            lines.append(f"{kind}: and {len(members) - MOST_SHOWN} more; --json lists them all")
    return lines


def _in_words(each: Difference, verdict: Verdict) -> str:
    if verdict.there == NOW or each.is_edit:
        return f"{each.kind}: {each.what}: was {each.here}, is {each.there}"
    return f"{each.kind}: {each.what}: {each.here} (first), {each.there} (second)"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
