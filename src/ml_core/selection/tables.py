"""Comparisons as aligned text, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.page.text import UNDEFINED, decimal, enumerated, signed
from ml_core.selection.spread import Spread

DIGITS = 4
NO_SPREAD = "one run, no spread"
BESIDE = ("pr_auc", "accuracy", "f2", "recall", "precision")  # means beside the ranking metric's


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Return rows under a header, columns aligned to the right but those whose numbers are `left`.

    Nothing follows the last letter of a line.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def render_spreads(spreads: Mapping[str, Spread]) -> str:
    """Return the metrics of one group of runs, a row for each; of one run the values alone."""
    if all(spread.n <= 1 for spread in spreads.values()):
        values = [(name, decimal(spread.mean, DIGITS)) for name, spread in spreads.items()]
        return render_table(("", "value"), values, left=(0,))
    header = ("", "mean", "sd", "95 % of the mean", "lowest", "highest")
    rows = [
        (name, *_spread_cells(spread), decimal(spread.min, DIGITS), decimal(spread.max, DIGITS))
        for name, spread in spreads.items()
    ]
    return render_table(header, rows, left=(0, 3))


def render_groups(
    labels: Sequence[str], spreads: Sequence[Mapping[str, Spread]], metric: str
) -> str:
    """Return a row for each group, with the spread of `metric` and the means of others."""
    beside = [name for name in BESIDE if name != metric and any(name in each for each in spreads)]
    header = ("", "runs", metric, "sd", "95 % of the mean", *beside, "")
    rows = [
        (
            f"{place}.",
            str(each[metric].n),
            *_spread_cells(each[metric]),
            *(decimal(each[name].mean, DIGITS) if name in each else UNDEFINED for name in beside),
            label,
        )
        for place, (label, each) in enumerate(zip(labels, spreads, strict=True), start=1)
    ]
    return render_table(header, rows, left=(4, len(header) - 1))


def render_differences(a: str, b: str, differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Return paired differences, a row for each metric; `a` and `b` head the models' columns."""
    header = ("", a, b, "difference", "95 % interval", "p", "test")
    rows = [
        (
            name,
            decimal(each["value"], DIGITS),
            decimal(each["other"], DIGITS),
            signed(each["difference"], DIGITS),
            f"{signed(each['low'], DIGITS)} to {signed(each['high'], DIGITS)}",
            p_value(each["p_value"]),
            each["test"],
        )
        for name, each in differences.items()
    ]
    return render_table(header, rows, left=(0, 4, 6))


def p_value(p: float | None) -> str:
    """Return a p-value as it is written; no test of this size proves more than "< 0.0001"."""
    return "< 0.0001" if p is not None and p < 1e-4 else decimal(p, DIGITS)


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return "seed 42" or "seeds 1, 2 and 42"."""
    return f"seed{'' if len(seeds) == 1 else 's'} {enumerated([str(seed) for seed in seeds])}"


def _spread_cells(spread: Spread) -> tuple[str, str, str]:
    mean = decimal(spread.mean, DIGITS)
    if spread.n == 1:
        return mean, UNDEFINED, NO_SPREAD
    if math.isnan(spread.low):
        return mean, UNDEFINED, UNDEFINED
    interval = f"{decimal(spread.low, DIGITS)} to {decimal(spread.high, DIGITS)}"
    return mean, decimal(spread.sd, DIGITS), interval
