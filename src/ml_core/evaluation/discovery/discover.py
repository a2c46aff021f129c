"""The search for failures: half of the patches suggests slices, the other half confirms them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.discovery.clusters import cluster_patches
from ml_core.evaluation.discovery.discovered import Discovery
from ml_core.evaluation.discovery.halves import (
    deal_patches,
    deal_slides,
    is_distinct,
    numbered_slides,
)
from ml_core.evaluation.discovery.judge import judge
from ml_core.evaluation.discovery.outcomes import Outcomes
from ml_core.evaluation.discovery.reading import (
    NO_FEATURES,
    check_discovery,
    detectable_excess,
    note_clusters,
    note_limits,
)
from ml_core.evaluation.discovery.rules import RuleSearch
from ml_core.evaluation.discovery.suggest import suggest_clusters, suggest_rules
from ml_core.evaluation.discovery.terms import name_terms, number_terms
from ml_core.evaluation.predictions import Predictions
from ml_core.metrics.arrays import Ints, check_threshold

T = TypeVar("T", bound=np.generic)

MOST_OTHERS = 3  # names, and clusters: each suggestion makes the test of all harder


def discover_slices(
    predictions: Predictions,
    threshold: float,
    facts: pd.DataFrame,
    *,
    features: npt.NDArray[np.float32] | None = None,
    logit_direction: npt.NDArray[np.float32] | None = None,
    slides: npt.NDArray[np.object_] | None = None,
    groups: npt.NDArray[np.object_] | None = None,
    seed: int = 0,
    num_suggested: int = 10,
    max_terms: int = 3,
    false_discovery_rate: float = 0.05,
    level: float = 0.95,
) -> Discovery:
    """Return the slices on which the model fails more often than elsewhere, without being told.

    A patch is called tumour where ``y_prob >= threshold``. One half of the patches suggests slices,
    the other half confirms them, corrected for their number. Suggested are at most

    * `num_suggested` rules of up to `max_terms` terms over the numbers among `facts` (columns of
      FACTS that may suggest; N rows as `predictions`), each beside those found before it;
    * MOST_OTHERS of the slides and patients that `facts` name;
    * MOST_OTHERS clusters of `features` (N, D), apart from what follows the logit;
      `logit_direction` (D,) is projected out where it still is in them.

    `slides` (N,) are dealt to the halves as a whole where they are known and at least 10, so that
    what is suggested on some is confirmed on others; but a slide can only be confirmed on other
    patches of its own. `groups` (N,) names equal patches: of each, one counts. All else being
    equal, the result depends on `seed` and the patches, not on their order.

    Raises RunError without labels, and ValueError for arrays that do not fit.
    """
    check_threshold(threshold)
    _check_fit(len(predictions), facts=facts, features=features, slides=slides, groups=groups)
    # In the order of the file, so that no sum differs in its last bit and no cluster in its start.
    order = np.argsort(predictions.index, kind="stable")
    predictions = _ordered(predictions, order)
    facts = facts.iloc[order].reset_index(drop=True)
    features, slides = _taken(features, order), _taken(slides, order)
    groups = _taken(groups, order)

    labels, index = predictions.labels, predictions.index
    is_wrong = (predictions.y_prob >= threshold) != (labels == 1)
    distinct = is_distinct(index, groups)
    numbers = numbered_slides(slides, index)
    by_patch = deal_patches(index, distinct, seed)
    halves = by_patch if numbers is None else deal_slides(numbers, distinct, seed)
    outcomes = Outcomes.of(labels, is_wrong, halves.suggests)
    of_patches = Outcomes.of(labels, is_wrong, by_patch.suggests)
    notes = note_limits(distinct, slides, numbers)

    rules = RuleSearch(number_terms(facts), max_terms)
    names = RuleSearch(name_terms(facts), max_terms=1)
    found = [
        *suggest_rules(rules, facts, halves, outcomes, num_suggested),
        *suggest_rules(names, facts, by_patch, of_patches, MOST_OTHERS),
    ]
    if features is None:
        notes += (NO_FEATURES,)
    else:
        logit, suggests = predictions.logit, halves.suggests
        clusters = cluster_patches(features, logit, logit_direction, suggests, seed)
        found += suggest_clusters(clusters, halves, outcomes, MOST_OTHERS)
        notes += (note_clusters(logit, clusters),)

    slices = judge(found, predictions, facts, false_discovery_rate, level)
    detectable = detectable_excess(is_wrong[halves.confirms], len(found), false_discovery_rate)
    back = np.argsort(order)
    return Discovery(
        slices=tuple(replace(a, slice=replace(a.slice, mask=a.slice.mask[back])) for a in slices),
        split_by="patch" if numbers is None else "slide",
        num_suggesting=int(halves.suggests.sum()),
        num_confirming=int(halves.confirms.sum()),
        num_tried=rules.num_tried + names.num_tried,
        num_suggested=len(found),
        num_confirmed=sum(each.is_confirmed for each in slices),
        detectable=detectable,
        false_discovery_rate=false_discovery_rate,
        level=level,
        max_terms=max_terms,
        seed=seed,
        notes=notes,
        findings=check_discovery(slices, detectable, false_discovery_rate),
    )


def _taken(array: npt.NDArray[T] | None, order: Ints) -> npt.NDArray[T] | None:
    return None if array is None else array[order]


def _ordered(predictions: Predictions, order: Ints) -> Predictions:
    return replace(
        predictions,
        index=predictions.index[order],
        y_true=predictions.labels[order],
        y_prob=predictions.y_prob[order],
        logit=predictions.logit[order],
    )


def _check_fit(num_patches: int, **arrays: npt.NDArray[Any] | pd.DataFrame | None) -> None:
    for name, array in arrays.items():
        if array is not None and len(array) != num_patches:
            raise ValueError(
                f"{name} has {len(array)} rows and there are {num_patches} predictions; needed is "
                "one row for each, in the same order."
            )
    features = arrays["features"]
    if isinstance(features, np.ndarray) and (features.ndim != 2 or not np.isfinite(features).all()):
        raise ValueError(
            f"features have shape {features.shape} or values that are not finite; needed are "
            "finite numbers (N, D). Predict again."
        )
