"""The audit in one glance: what it comes to, how far it looked, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.audit.page.evidence import Card
from ml_core.page.text import count


@dataclass(frozen=True)
class Step:
    """Something to do next, with the command to type where there is one."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Verdict:
    """`severity` is the worst there is, "good" where nothing was found."""

    severity: str
    headline: str
    sample: str  # said loudly where not every patch was read; else ""
    steps: tuple[Step, ...]
    num_rows: int
    num_examined: int
    num_flagged: int
    num_excluded: int
    num_positive: int
    num_labelled: int
    num_bytes: int

    @property
    def share_tumour(self) -> float | None:
        return self.num_positive / self.num_labelled if self.num_labelled else None

    @property
    def share_flagged(self) -> float | None:
        return self.num_flagged / self.num_examined if self.num_examined else None


def build_verdict(audit: Mapping[str, Any], cards: Sequence[Card]) -> Verdict:
    """Return the verdict on `audit`, whose findings are `cards`."""
    splits = list(audit.get("splits", {}).values())
    total = {
        key: sum(int(split.get(f"num_{key}") or 0) for split in splits)
        for key in ("rows", "examined", "flagged", "excluded", "positive", "unlabelled", "bytes")
    }
    return Verdict(
        severity=_worst(cards),
        headline=_headline(cards, is_quick(audit)),
        sample=_sample(audit, total),
        steps=tuple(_steps(audit, cards, total["excluded"])),
        num_rows=total["rows"],
        num_examined=total["examined"],
        num_flagged=total["flagged"],
        num_excluded=total["excluded"],
        num_positive=total["positive"],
        num_labelled=total["rows"] - total["unlabelled"],  # labels are read of the whole file
        num_bytes=total["bytes"],
    )


def is_quick(audit: Mapping[str, Any]) -> bool:
    """Return whether only a sample was looked at."""
    return audit.get("mode") == "quick"


def command_of(audit: Mapping[str, Any]) -> str:
    """Return the command that made the audit, or where it is not known one that would."""
    command = f"{_full_audit(audit)} --quick" if is_quick(audit) else _full_audit(audit)
    return str(audit.get("command") or command)


def number_of(number: int, noun: str, plural: str = "") -> str:
    """Return "1 error", "5 errors", or with the plural that is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _worst(cards: Sequence[Card]) -> str:
    held = {card.severity for card in cards}
    return next((s for s in ("error", "warning") if s in held), "good")


def _headline(cards: Sequence[Card], quick: bool) -> str:
    errors = sum(card.severity == "error" for card in cards)
    warnings = sum(card.severity == "warning" for card in cards)
    if errors:
        found = number_of(errors, "error")
        if warnings:
            found += f", {number_of(warnings, 'warning')}"
        return f"{found}: do not train on this as it is"
    if warnings:
        read = "read it" if warnings == 1 else "read them"
        return f"No errors, {number_of(warnings, 'warning')}: {read} before you train"
    return f"Nothing is wrong that we can see{' in this sample' if quick else ''}"


def _sample(audit: Mapping[str, Any], total: Mapping[str, int]) -> str:
    if not is_quick(audit):
        return ""
    return (
        f"{count(total['examined'])} of {count(total['rows'])} patches were looked at. Counts and "
        "exclusions are those of the sample; what is rare may have been missed, and some checks "
        "need every patch."
    )


def _steps(audit: Mapping[str, Any], cards: Sequence[Card], num_excluded: int) -> list[Step]:
    errors = [card for card in cards if card.severity == "error"]
    train = "ml-core train CONFIG.yaml"
    steps = []
    if is_quick(audit):
        steps.append(Step("Look at every patch:", _full_audit(audit)))
    if not errors:
        first = "Read the warnings, then train:" if cards and _worst(cards) != "good" else "Train:"
        return [*steps, Step(first, train)]
    by_rows = [card for card in errors if card.exclude]
    others = [card for card in errors if not card.exclude]
    if by_rows:
        listed = f"the {number_of(num_excluded, 'patch', 'patches')} of exclusions.csv"
        text = f"Train without {listed}, which settles {_names(by_rows)}:"
        steps.append(Step(text, f"{train} --set data.on_findings=exclude"))
    if others:
        text = f"Mend the files, since no exclusion settles {_names(others)}; then audit again:"
        steps.append(Step(text, _full_audit(audit)))
    text = "Train in spite of it, if you can say why; the report of the run will tell:"
    return [*steps, Step(text, f"{train} --set data.on_findings=ignore")]


def _full_audit(audit: Mapping[str, Any]) -> str:
    return f"ml-core audit {shlex.quote(str(audit.get('data_path', 'DATA_DIR')))}"


def _names(cards: Sequence[Card]) -> str:
    names = list(dict.fromkeys(card.title for card in cards))
    shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
