"""What a reader of the slice table must know, in sentences made of its figures."""

from __future__ import annotations

from collections.abc import Sequence

from ml_core.evaluation.slices.few_slides import MIN_SLIDES
from ml_core.evaluation.slices.known_slides import KnownSlides
from ml_core.evaluation.slices.slice_score import SliceScore
from ml_core.findings import Finding
from ml_core.page.text import enumerated, percent, signed

_MOST_NAMED = 5


def slice_findings(
    rows: Sequence[SliceScore], slides: KnownSlides, false_discovery_rate: float
) -> tuple[Finding, ...]:
    """Return where the model is worse, what errors do not show, and what could not be told."""
    tested = [row for row in rows if row.standing != "not scored"]
    each = (
        _of_worse(tested, false_discovery_rate),
        _of_lower("recall", tested, false_discovery_rate),
        _of_lower("roc_auc", tested, false_discovery_rate),
        _of_empty(rows),
        _of_too_small([row for row in rows if not _is_empty(row)]),
        _of_slides(slides),
    )
    return tuple(finding for finding in each if finding is not None)


def _of_worse(tested: Sequence[SliceScore], rate: float) -> Finding | None:
    worse = [row for row in tested if row.standing == "worse"]
    if not worse:
        return None
    return Finding(
        "slices-worse",
        "warning",
        f"in {len(worse)} of {len(tested)} slices there are more errors than in the rest, adjusted "
        f"for class, at a false discovery rate of {percent(rate, 0)}: {_named(worse, 'error')}.",
        "Look at their patches, train on more like them, and do not rely on the model there.",
        count=len(worse),
        facts=_facts(worse, "error"),
    )


def _of_lower(kind: str, tested: Sequence[SliceScore], rate: float) -> Finding | None:
    """Return the slices that errors as a whole do not single out, but one of their sides does."""
    lower = [
        row
        for row in tested
        if row.standing != "worse"
        and row.difference(kind).value < 0
        and row.difference(kind).q <= rate
    ]
    if not lower:
        return None
    name = {"recall": "recall", "roc_auc": "ROC-AUC"}[kind]
    meaning = {
        "recall": "tumours are missed more often there",
        "roc_auc": "tumours and normal patches are told apart less well there",
    }[kind]
    return Finding(
        f"slices-lower-{name.lower()}",
        "warning",
        f"in {len(lower)} of {len(tested)} slices the {name} is lower than in the rest, though "
        f"their error is not told apart as worse: {_named(lower, kind)}; {meaning}.",
        "Look at their probabilities: a shift of all of them asks for other colours in training.",
        count=len(lower),
        facts=_facts(lower, kind),
    )


def _is_empty(row: SliceScore) -> bool:
    return row.slice.kind == "own" and len(row.slice) == 0


def _of_empty(rows: Sequence[SliceScore]) -> Finding | None:
    """Return the user's own slices that hold no patch: more likely a slip than a wish."""
    empty = [f"{row.slice.name} ({row.slice.said})" for row in rows if _is_empty(row)]
    if not empty:
        return None
    return Finding(
        "slices-empty",
        "warning",
        f"of your own slices, {len(empty)} hold no patch: {'; '.join(empty[:_MOST_NAMED])}.",
        "Look at the values that the patches have: in the audit's patches.parquet.",
    )


def _of_too_small(rows: Sequence[SliceScore]) -> Finding | None:
    small = [row for row in rows if row.too_small]
    if not small:
        return None
    named = [f"{row.slice.name} ({row.too_small.rstrip('.')})" for row in small[:_MOST_NAMED]]
    return Finding(
        "slices-too-small",
        "info",
        f"too small to be scored, {len(small)} of {len(rows)} slices: "
        f"{_shortened(named, len(small))}.",
        "Predict more patches of their kind to know how the model does there.",
        count=len(small),
        facts={"slices": [row.slice.name for row in small]},
    )


def _of_slides(slides: KnownSlides) -> Finding | None:
    if slides.are_enough:
        return None
    todo = "Give the meta file that names the slide of each patch, and audit again."
    if slides.num_slides == 0:
        why = "the slides of the patches are not known"
    elif slides.num_unknown:
        why = f"the slide of {slides.num_unknown:,} patches is not known"
    else:
        many = "1 slide" if slides.num_slides == 1 else f"{slides.num_slides} slides"
        why = f"the patches are of {many}, and {MIN_SLIDES} are needed"
        todo = f"Score patches of at least {MIN_SLIDES} slides."
    return Finding(
        "slices-without-slides",
        "info",
        f"{why}: intervals and tests take patches as drawn one by one, though patches of one slide "
        "resemble each other, so that on other slides the spread is wider than they say.",
        todo,
        count=slides.num_unknown,
    )


def _named(rows: Sequence[SliceScore], kind: str) -> str:
    """Return the first slices with their differences, of shares in percentage points."""
    scale, digits, unit = (1, 3, "") if kind == "roc_auc" else (100, 1, " points")
    named = []
    for row in rows[:_MOST_NAMED]:
        value, interval = row.difference(kind).value, row.difference(kind).interval
        ends = " to ".join(signed(scale * end, digits) for end in interval)
        figures = f"{signed(scale * value, digits)}{unit}, {ends}, n {row.n:,}"
        if row.num_slides is not None and not row.clustered:  # it speaks of these slides alone
            figures += f", slides {row.num_slides}"
        named.append(f"{row.slice.name} ({figures})")
    return _shortened(named, len(rows))


def _shortened(named: list[str], num_all: int) -> str:
    more = num_all - len(named)
    return enumerated([*named, f"{more} more"] if more else named)


def _facts(rows: Sequence[SliceScore], kind: str) -> dict[str, object]:
    return {
        "slices": [
            {"name": row.slice.name, "where": row.slice.where, "n": row.n, **_figures(row, kind)}
            for row in rows
        ]
    }


def _figures(row: SliceScore, kind: str) -> dict[str, object]:
    found = row.difference(kind)
    return {
        "difference": found.value,
        "low": found.interval.low,
        "high": found.interval.high,
        "q": found.q,
    }
