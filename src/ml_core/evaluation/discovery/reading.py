"""What a reader must know of a search: what a slice looks like, what was found, what was not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.discovery.clusters import share_explained
from ml_core.evaluation.discovery.discovered import DiscoveredSlice, Look
from ml_core.evaluation.discovery.halves import MIN_SLIDES
from ml_core.evaluation.discovery.suggest import Suggestion
from ml_core.findings import Finding
from ml_core.metrics.arrays import Floats, Ints
from ml_core.page.text import enumerated, percent, signed

Masks = npt.NDArray[np.bool_]

_MOST_NAMED = 3
NO_FEATURES = "No features of the model were given, so clusters in them were not searched."


def say(suggestion: Suggestion, looks: Sequence[Look]) -> str:
    """Return in words what the patches of a slice have in common."""
    words = enumerated([look.words for look in looks]) if looks else "like the rest in every fact"
    if suggestion.found_by == "rule":
        return words
    return f"alike in the model's features, apart from its output: {words}"


def detectable_excess(is_wrong: Masks, num_suggested: int, false_discovery_rate: float) -> float:
    """Return what a slice of a tenth of patches must err more often to be seen in 4 of 5 cases.

    `is_wrong` are the confirming patches. Normal approximation for two proportions (Fleiss, Levin
    and Paik 2003, section 4.2) at the smallest of the corrected levels; NaN below 10 patches and
    without errors.
    """
    num, rate = len(is_wrong), float(is_wrong.mean()) if len(is_wrong) else 0.0
    if num < 10 or not 0 < rate < 1:
        return math.nan
    level = false_discovery_rate / max(num_suggested, 1)
    quantiles = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(0.8)
    return quantiles * math.sqrt(rate * (1 - rate) / (num * 0.1 * 0.9))


def note_limits(
    distinct: Masks,
    slides: npt.NDArray[np.object_] | None,
    numbers: Ints | None,
) -> tuple[str, ...]:
    """Return in sentences what was not done, and why; all arrays are (N,)."""
    notes = []
    if slides is None:
        notes.append(
            "No slide is known of these patches, so patches of one slide may stand in both halves: "
            "a slice is confirmed for slides like these, not for new ones."
        )
    elif numbers is None:
        notes.append(
            f"Fewer than {MIN_SLIDES} slides are known, too few to deal out whole slides, so "
            "patches of one slide stand in both halves: a slice is confirmed for these slides."
        )
    if not distinct.all():
        copies = int((~distinct).sum())
        notes.append(f"{copies:,} copies of other patches were left out: they confirm nothing.")
    return tuple(notes)


def note_clusters(logit: Floats, clusters: Ints) -> str:
    """Return in a sentence how far clusters (N,) are of what patches look like, not the output."""
    share = percent(share_explained(logit, clusters), 0)
    return (
        "Clusters group patches that look alike to the model, whatever it answers: which cluster a "
        f"patch is in tells {share} of how its probability ranks (100 % would be all)."
    )


def check_discovery(
    slices: Sequence[DiscoveredSlice], detectable: float, false_discovery_rate: float
) -> tuple[Finding, ...]:
    """Return one finding: which slices were confirmed, or how large an excess would have been."""
    confirmed = [each for each in slices if each.is_confirmed]
    facts = {"num_suggested": len(slices), "num_confirmed": len(confirmed)}
    if confirmed:
        named = "; ".join(_named(each) for each in confirmed[:_MOST_NAMED])
        more = len(confirmed) - _MOST_NAMED
        return (
            Finding(
                "slices-discovered",
                "warning",
                f"{len(confirmed)} of {len(slices)} suggested slices fail more often than the rest "
                "on patches that did not suggest them, at a false discovery rate of "
                f"{percent(false_discovery_rate, 0)}: {named}{f'; and {more} more' * (more > 0)}.",
                "Look at their patches, train on more like them, and do not rely on the model "
                "there.",
                count=len(confirmed),
                facts={**facts, "slices": [each.slice.name for each in confirmed]},
            ),
        )
    if math.isnan(detectable):
        seen = "There are too few patches, or no errors among them, to see any."
    else:
        seen = (
            f"A slice of a tenth of the patches is seen in 4 of 5 cases where it errs "
            f"{100 * detectable:.0f} points more often than the rest."
        )
    return (
        Finding(
            "no-slice-discovered",
            "info",
            f"None of {len(slices)} suggested slices fails more often than the rest on patches "
            f"that did not suggest it. {seen}",
            "Score more patches to see smaller failures.",
            facts=facts,
        ),
    )


def _named(each: DiscoveredSlice) -> str:
    figures = each.confirmed
    name = each.slice.where or f"{each.slice.name} ({each.slice.said})"
    return (
        f"{name}: {figures.errors} {each.target} among {figures.n}, "
        f"{signed(100 * figures.difference, 0)} points (q = {figures.q:.2g})"
    )
