"""How much of what a model says follows from properties that should not matter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.json_score import JSONScore, score_dict
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.shortcut_score import property_score
from ml_core.findings import Finding
from ml_core.metrics import Interval, auc_standard_error, delong_interval, delong_test
from ml_core.metrics.interval import UNDEFINED, logit_interval, normal_quantile
from ml_core.page.text import decimal, signed

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# The facts of a patch that stand for each property of the audit that a model can see; the audit has
# the columns that they are made of. On 20,000 and 1,500 real patches they predict the label with
# ROC-AUCs of 0.80 and 0.83 for mean colour, 0.87 and 0.86 for colour statistics; the audit's with
# 0.81 and 0.84, 0.87 and 0.87.
FACTS_OF_PROPERTY: dict[str, tuple[str, ...]] = {
    "mean-colour": ("brightness", "hue", "saturation"),
    "colour-statistics": (
        "brightness", "hue", "saturation", "contrast", "haematoxylin", "eosin",
        "haematoxylin_share", "tissue_share", "white_share",
    ),
    "blockiness": ("blockiness",),
    "focus": ("focus",),
}  # fmt: skip
CLASSES = {"normal": 0, "tumour": 1}
NUM_TENTHS = 10

# Half the variance of the ranks: from here on the property says more of what the model thinks about
# patches of one class than everything else together. Mean colour reaches 0.90 with an MLP on real
# patches and 0.51 with a CNN; between patches of like colour their ROC-AUC is 0.57 and 0.89.
FOLLOWS_FROM = math.sqrt(0.5)


def measure_shortcuts(
    predictions: Predictions,
    facts: pd.DataFrame,
    audit_table: Sequence[Mapping[str, Any]],
    level: float = 0.95,
) -> dict[str, Any]:
    """Return the audit's properties beside the model's scores, and how far the model follows them.

    `facts` has one row per prediction, in their order; `audit_table` is the audit's own, of which
    the lines of this split are taken. Per property:

    auc                 with which it alone predicts the label, from the audit
    model_minus_it      ROC-AUC of the model less that of the property in its better direction; the
                        interval takes the two for independent (MOVER: Zou and Donner 2008), so it
                        is too wide rather than too narrow
    within_class        Spearman's correlation of the model's logit with the property among normal
                        and among tumour patches, with Bonett and Wright's interval (Psychometrika
                        65, 2000). A model that only knew the truth would have 0. Of a property of
                        several facts, `property_score` is correlated: how tumour-like they are.
    auc_at_like_values  ROC-AUC of the model over pairs of patches in the same tenth of the
                        property: near 0.5 where it knows nothing else

    None where undefined, and the last two for what no model sees: the order of the file. A property
    may be correlated for a good reason, as nuclei are blue; the audit's AUC tells by how much.
    Patches of one slide resemble each other, so true intervals are wider. Raises RunError without
    labels.
    """
    assert len(facts) == len(predictions), "one row of facts per prediction"
    labels, probs = predictions.labels, predictions.y_prob
    ends = delong_interval(labels, probs, level)
    model = score_dict(_auc(labels, probs), ends)
    lines = [line for line in audit_table if line["split"] == predictions.split]
    properties = [_property(line, model, predictions, facts, level) for line in lines]
    return {
        "n": len(predictions),
        "level": level,
        "model_auc": model,
        "properties": properties,
        "findings": [asdict(finding) for finding in _findings(predictions.split, properties)],
    }


def _property(
    line: Mapping[str, Any],
    model: JSONScore,
    predictions: Predictions,
    facts: pd.DataFrame,
    level: float,
) -> dict[str, Any]:
    name = str(line["property"])
    seen = [fact for fact in FACTS_OF_PROPERTY.get(name, ()) if fact in facts]
    values = np.full(len(predictions), np.nan)
    if seen:
        values = property_score(facts[seen].to_numpy(np.float64), predictions.labels)
    within = {
        called: _correlation(values, predictions.logit, predictions.labels == label, level)
        for called, label in CLASSES.items()
    }
    return {
        "name": name,
        "facts": seen,
        "auc": {"value": line["auc"], "low": line["low"], "high": line["high"]},
        "model_minus_it": _difference(model, line),
        "within_class": within,
        "auc_at_like_values": _auc_within_tenths(predictions, values, level),
    }


def _difference(model: JSONScore, line: Mapping[str, Any]) -> JSONScore:
    """Return the model's area less the property's, mirrored where it lies below one half."""
    a, a_low, a_high = (_nan_if_none(model[key]) for key in ("value", "low", "high"))
    b, b_low, b_high = (_nan_if_none(line[key]) for key in ("auc", "low", "high"))
    if b < 0.5:
        b, b_low, b_high = 1 - b, 1 - b_high, 1 - b_low
    difference = a - b
    low = difference - math.hypot(a - a_low, b_high - b)
    high = difference + math.hypot(a_high - a, b - b_low)
    return score_dict(difference, Interval(low, high))


def _correlation(
    values: Floats, logit: Floats, in_class: npt.NDArray[np.bool_], level: float
) -> JSONScore:
    """Return Spearman's rho among the patches of a class, with Bonett and Wright's interval."""
    known = in_class & np.isfinite(values)
    num = int(known.sum())
    if num < 4 or np.ptp(values[known]) == 0 or np.ptp(logit[known]) == 0:
        return score_dict(math.nan, UNDEFINED)
    ranks = pd.DataFrame({"property": values[known], "logit": logit[known]}).rank()
    rho = float(ranks["property"].corr(ranks["logit"]))
    most = 1 - 1 / num  # a perfect order of few patches is no proof of one, and has no Fisher z
    z = math.atanh(min(max(rho, -most), most))
    reach = normal_quantile(level) * math.sqrt((1 + rho**2 / 2) / (num - 3))
    low, high = math.tanh(z - reach), math.tanh(z + reach)
    return score_dict(rho, Interval(min(low, rho), max(high, rho)))


def _auc_within_tenths(predictions: Predictions, values: Floats, level: float) -> JSONScore:
    """Return the ROC-AUC over pairs of patches from one tenth of the property.

    That of each tenth weighs as many pairs as it has; its variance is DeLong's, and tenths share no
    patch. A tenth with fewer than two patches of a class has no variance and is left out.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0:
        return score_dict(math.nan, UNDEFINED)
    cuts = np.quantile(values[known], np.arange(1, NUM_TENTHS) / NUM_TENTHS)
    tenth = np.searchsorted(cuts, values[known], side="right")
    areas, errors, pairs = [], [], []
    for number in np.unique(tenth):
        rows = known[tenth == number]
        labels, probs = predictions.labels[rows], predictions.y_prob[rows]
        positives = int(labels.sum())
        if min(positives, len(rows) - positives) >= 2:
            areas.append(_auc(labels, probs))
            errors.append(auc_standard_error(labels, probs))
            pairs.append(positives * (len(rows) - positives))
    if not pairs:
        return score_dict(math.nan, UNDEFINED)
    shares = np.array(pairs) / sum(pairs)
    value, error = float(shares @ areas), float(np.linalg.norm(shares * errors))
    is_inside = 0 < value < 1 and error > 0
    return score_dict(value, logit_interval(value, error, level) if is_inside else UNDEFINED)


def _auc(y_true: Ints, y_prob: Floats) -> float:
    return delong_test(y_true, y_prob, y_prob).auc_a


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _findings(split: str, properties: Sequence[Mapping[str, Any]]) -> list[Finding]:
    if not properties:
        return [
            Finding(
                id="shortcuts-not-measured",
                severity="info",
                message=f"The audit has measured no shortcut on {split}.",
                action="Audit the data with this split: ml-core audit.",
                split=split,
            )
        ]
    seen = [each for each in properties if each["facts"]]
    return [*_about_following(split, seen), *_about_beating(split, seen)]


def _about_following(split: str, properties: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding(
            id=f"follows-{each['name']}",
            severity="warning",
            message=f"{split}: among patches of one class the logit follows {each['name']}, with a "
            f"rank correlation of {decimal(each['within_class']['normal']['value'])} among normal "
            f"and {decimal(each['within_class']['tumour']['value'])} among tumour patches; between "
            f"patches alike in it the ROC-AUC is {decimal(each['auc_at_like_values']['value'])}.",
            action="Take the property away in training (augmentation), or train a model that can "
            "see more.",
            split=split,
            facts=dict(each),
        )
        for each in properties
        if _follows(each["within_class"].values())
    ]


def _follows(within: Iterable[JSONScore]) -> bool:
    """Whether all correlations are surely strong, and in one direction."""
    ends = [(_nan_if_none(each["low"]), _nan_if_none(each["high"])) for each in within]
    up = all(low >= FOLLOWS_FROM for low, _ in ends)
    down = all(high <= -FOLLOWS_FROM for _, high in ends)
    return up or down


def _about_beating(split: str, properties: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding(
            id=f"no-better-than-{each['name']}",
            severity="warning",
            message=f"{split}: the ROC-AUC of the model is not clearly above that of "
            f"{each['name']} alone: {signed(difference['value'])} "
            f"({signed(difference['low'])} to {signed(difference['high'])}).",
            action="Such a model has not been shown to look at cells: use the property, or train "
            "a better one.",
            split=split,
            facts=dict(each),
        )
        for each in properties
        if (difference := each["model_minus_it"])["low"] is not None and difference["low"] <= 0
    ]
