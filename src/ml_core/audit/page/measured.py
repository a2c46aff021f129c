"""What the facts of findings hold that is worth a figure: effects between splits, and AUCs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_core.audit.page.difference_plots import AucRow

Facts = Mapping[str, Any]

CHANNELS = {"r": "red", "g": "green", "b": "blue"}


def find_effects(findings: Sequence[Facts]) -> dict[str, dict[str, float]]:
    """Return Cliff's deltas as {statistic: {"train → valid": delta}}.

    From every dict in the facts that has a statistic, a first and a second split, and a delta; of
    several classes the one that differs most.
    """
    effects: dict[str, dict[str, float]] = {}
    for record in _records(findings):
        delta = _number(record.get("delta"))
        if delta is None or not {"statistic", "first", "second"} <= record.keys():
            continue
        row = effects.setdefault(_words(record["statistic"]), {})
        pair = f"{record['first']} → {record['second']}"
        if abs(delta) > abs(row.get(pair, 0.0)) or pair not in row:
            row[pair] = delta
    return effects


def find_aucs(findings: Sequence[Facts]) -> list[AucRow]:
    """Return how well each property predicts the label of each split.

    From every dict in the facts that has an AUC; its name is its "property", or its key, or the id
    of the finding, its interval "auc_interval" or "low" and "high". None is taken twice.
    """
    rows: dict[tuple[str, str], AucRow] = {}
    for record in _records(findings):
        auc = _number(record.get("auc"))
        if auc is None:
            continue
        interval = record.get("auc_interval")
        if not (isinstance(interval, Sequence) and len(interval) == 2):
            interval = (record.get("low"), record.get("high"))
        low, high = map(_number, interval)
        name = _words(record.get("property") or record["name"])
        split = str(record.get("split") or "")
        row = AucRow(name, split, auc, math.nan if low is None else low,
                     math.nan if high is None else high)  # fmt: skip
        rows.setdefault((name, split), row)
    return list(rows.values())


def _records(findings: Sequence[Facts]) -> Iterator[dict[str, Any]]:
    """Yield each finding's facts and the dicts in them, two levels down, with name and split."""
    for finding in findings:
        facts = finding.get("facts") or {}
        known = {
            "name": str(finding.get("id", "")).removeprefix("shortcut-"),
            "split": finding.get("split") or "",
        }
        yield {**known, **facts}
        for key, value in facts.items():
            if isinstance(value, Mapping):
                yield {**known, "name": str(key), **value}
            elif isinstance(value, list | tuple):
                for item in value:
                    if isinstance(item, Mapping):
                        yield {**known, "name": str(key), **item}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _words(name: Any) -> str:
    """Return "mean red" for the column mean_r."""
    words = str(name).replace("_", " ").replace("-", " ")
    stem, _, channel = words.rpartition(" ")
    return f"{stem} {CHANNELS[channel]}" if channel in CHANNELS else words
