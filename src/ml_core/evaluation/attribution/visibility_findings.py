"""What the scores of a half hidden patch say about a model, in words made of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ml_core.findings import Finding
from ml_core.page.text import decimal

CHANCE = 0.5  # ROC-AUC of an answer that does not depend on the label


def visibility_findings(views: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what of `views`, as `measure_visibility` gives them, a reader must know, JSON-able.

    A warning where the model's answer follows the ring more than the centre, which makes the label.
    """
    auc = {view: scores["metrics"]["roc_auc"] for view, scores in views.items()}
    if any(score["low"] is None for score in auc.values()):
        return []
    facts = {"roc_auc": {view: dict(score) for view, score in auc.items()}}
    found = [*_swapped(auc, facts), *_ring_alone(auc, facts)]
    return [asdict(finding) for finding in found]


def _swapped(auc: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> list[Finding]:
    centre, ring = auc["centre_on_other_ring"], auc["ring_on_other_centre"]
    if ring["value"] <= centre["value"]:
        return []
    return [
        Finding(
            "follows-the-ring",
            "warning",
            "Where centre and ring are of two patches the model follows the ring: ROC-AUC "
            f"{_shown(ring)} for the label of the ring's patch, {_shown(centre)} for that of the "
            "centre's, which is the one that it should find.",
            "Read it as a score of the surroundings, which misses a tumour that lies alone; "
            "train with the surroundings changed.",
            facts=facts,
        )
    ]


def _ring_alone(auc: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> list[Finding]:
    ring, centre, whole = auc["ring_only"], auc["centre_only"], auc["whole"]
    if ring["low"] <= CHANCE:
        return []
    return [
        Finding(
            "ring-tells-the-label",
            "info",
            f"With the centre covered ROC-AUC is {_shown(ring)}, with the ring covered "
            f"{_shown(centre)}, with the whole patch {_shown(whole)}: the model calls tumours that "
            "it is not shown.",
            "Do not read a call as tumour within the centre alone.",
            facts=facts,
        )
    ]


def _shown(score: Mapping[str, float]) -> str:
    return f"{decimal(score['value'])} ({decimal(score['low'])} to {decimal(score['high'])})"
