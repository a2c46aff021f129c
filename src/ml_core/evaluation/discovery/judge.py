"""What the half that has not seen a suggestion says of it, and what its patches look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ml_core.evaluation.discovery.confirm import confirmed_figures, corrected, suggested_figures
from ml_core.evaluation.discovery.discovered import Confirmed, DiscoveredSlice
from ml_core.evaluation.discovery.looks import describe_looks
from ml_core.evaluation.discovery.reading import say
from ml_core.evaluation.discovery.suggest import Suggestion
from ml_core.evaluation.predictions import Predictions

NUM_EXAMPLES = 12


def judge(
    found: Sequence[Suggestion],
    predictions: Predictions,
    facts: pd.DataFrame,
    false_discovery_rate: float,
    level: float,
) -> list[DiscoveredSlice]:
    """Return the suggestions as confirmed or not, corrected for their number; the worst first."""
    figures = corrected([_figures(each, level) for each in found])
    slices = []
    for each, confirmed in zip(found, figures, strict=True):
        mask, target = each.slice.mask, each.target
        looks = describe_looks(mask, facts)
        slices.append(
            DiscoveredSlice(
                slice=replace(each.slice, said=say(each, looks)),
                found_by=each.found_by,
                target=target,
                suggested=suggested_figures(mask, each.halves.suggests, each.outcomes, target),
                confirmed=confirmed,
                is_confirmed=confirmed.difference > 0 and confirmed.q <= false_discovery_rate,
                looks=looks,
                beside=each.beside,
                examples=_examples(each, predictions),
            )
        )
    return sorted(slices, key=_worst_first)


def _figures(suggestion: Suggestion, level: float) -> Confirmed:
    return confirmed_figures(
        suggestion.slice.mask,
        suggestion.halves.confirms,
        suggestion.outcomes,
        suggestion.target,
        suggestion.halves.slides,
        level,
    )


def _worst_first(each: DiscoveredSlice) -> tuple[bool, float]:
    if each.is_confirmed:
        return False, -each.confirmed.low
    return True, 2.0 if np.isnan(each.confirmed.p) else each.confirmed.p


def _examples(suggestion: Suggestion, predictions: Predictions) -> tuple[int, ...]:
    """Return the indices of the confirming patches with the largest loss, of the target's class."""
    concerned = suggestion.outcomes.concerned(suggestion.target)
    rows = np.flatnonzero(suggestion.slice.mask & suggestion.halves.confirms & concerned)
    worst = np.lexsort((predictions.index[rows], -predictions.nll[rows]))[:NUM_EXAMPLES]
    return tuple(predictions.index[rows[worst]].tolist())
