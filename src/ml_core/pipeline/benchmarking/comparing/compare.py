"""Two configs against each other, in alternation: what disturbs the machine meets both of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ml_core.page.text import count
from ml_core.pipeline.benchmarking.comparing.contestant import CONTESTS, Contest, Contestant
from ml_core.pipeline.benchmarking.comparing.paired_ratio import PairedRatio, paired_ratio
from ml_core.selection.tables import render_table


@dataclass(frozen=True)
class Compared:
    """Patches per second of a and b, of every round, and their ratio."""

    contest: Contest
    a: tuple[float, ...]
    b: tuple[float, ...]
    ratio: PairedRatio


def compare_in_turns(
    a: Contestant,
    b: Contestant,
    *,
    rounds: int,
    seconds: float,
    report: Callable[[int], object] = lambda _: None,
) -> list[Compared]:
    """Return how `a` and `b` compare, end to end and in the forward pass.

    A turn takes `seconds`; who has the first turn of a round changes from round to round, and the
    turns before the first round are not counted. `report` is told of each turn.
    """
    rates: dict[Contest, dict[str, list[float]]] = {
        contest: {"a": [], "b": []} for contest in CONTESTS
    }
    sides = (("a", a), ("b", b))
    for number in range(rounds + 1):
        for contest in CONTESTS:
            for key, side in sides if number % 2 else sides[::-1]:
                rate = side.take_turn(contest, seconds)
                if number > 0:
                    rates[contest][key].append(rate)
                report(1)
    return [_compared(contest, found["a"], found["b"]) for contest, found in rates.items()]


def render_compared(compared: Sequence[Compared], names: tuple[str, str]) -> str:
    """Return a row for each contest: the medians, the ratio with its interval, and what it says."""
    header = ("patches/s", *names, "ratio", "95 % interval", "")
    rows = [
        (
            each.contest,
            count(_median(each.a)),
            count(_median(each.b)),
            f"{each.ratio.ratio:.3f}",
            f"{each.ratio.low:.3f} to {each.ratio.high:.3f}",
            verdict(each.ratio, names),
        )
        for each in compared
    ]
    return render_table(header, rows, left=(0, 4, 5))


def verdict(ratio: PairedRatio, names: tuple[str, str]) -> str:
    """Return who is faster, or that no difference was found."""
    if not ratio.is_difference:
        return "no difference"
    return f"{names[0] if ratio.ratio > 1 else names[1]} is faster"


def _compared(contest: Contest, a: list[float], b: list[float]) -> Compared:
    return Compared(contest, tuple(a), tuple(b), paired_ratio(a, b))


def _median(rates: Sequence[float]) -> float:
    return sorted(rates)[len(rates) // 2]
