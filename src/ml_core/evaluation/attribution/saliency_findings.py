"""What the attribution of a model says about it, in words made of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_core.findings import Finding
from ml_core.page.text import percent

Score = Mapping[str, float | None]


def saliency_findings(
    methods: Mapping[str, Mapping[str, Any]], share_of_area: float
) -> list[Finding]:
    """Return what of `methods`, as `compare_maps` gives them, a reader must know.

    Occlusion decides, for it asks the model as it is used; a warning where the centre, which alone
    makes the label, has no more of it than of the area, or less than random weights give it.
    """
    occlusion = methods["occlusion"]
    if "why_not" in occlusion:
        return [_not_measured(str(occlusion["why_not"]))]
    share, difference = occlusion["share_in_centre"], occlusion["difference"]
    found = []
    if share["low"] is not None:
        found.append(_against_area(share, share_of_area))
    if difference["low"] is not None:
        found.append(_against_random(share, occlusion["random_weights"], difference))
    empty = methods["grad_cam"].get("num_empty", 0)
    if empty:
        found.append(
            Finding(
                "grad-cam-empty",
                "info",
                f"For {empty} patches nothing in the last map speaks for the class that is called, "
                "so Grad-CAM shows nothing.",
                "See occlusion for them.",
                count=empty,
            )
        )
    return found


def _not_measured(why_not: str) -> Finding:
    return Finding(
        "attribution-not-measured",
        "warning",
        f"Where the model looks is not measured, for nothing stands beside it: {why_not}",
        "Give the layer a reset_parameters(), as torch's layers have, and explain again.",
    )


def _against_area(share: Score, area: float) -> Finding:
    said = f"{_shown(share)} of the occlusion's attribution lies in the centre, {percent(area)} of"
    facts = {"share_in_centre": dict(share), "share_of_area": area}
    if _number(share["low"]) > area:
        return Finding(
            "attribution-in-centre", "info", f"{said} the area: more than if the place did not "
            "matter.", facts=facts,
        )  # fmt: skip
    return Finding(
        "attribution-not-in-centre",
        "warning",
        f"{said} the area: no more than if the place did not matter, though the centre alone makes "
        "the label.",
        "See what the model answers when only the ring around the centre is shown.",
        facts=facts,
    )


def _against_random(share: Score, random: Score, difference: Score) -> Finding:
    facts = {
        "share_in_centre": dict(share),
        "random_weights": dict(random),
        "difference": dict(difference),
    }
    said = f"With random weights {_shown(random)} of the occlusion's attribution lies in the centre"
    if _number(difference["high"]) < 0:
        return Finding(
            "attribution-left-centre",
            "warning",
            f"{said}, with the trained ones {_shown(share)}: training moved it out.",
            "See what the model answers when only the ring around the centre is shown.",
            facts=facts,
        )
    if _number(difference["low"]) > 0:
        return Finding(
            "attribution-moved-to-centre", "info",
            f"{said}, with the trained ones {_shown(share)}: training moved it in.", facts=facts,
        )  # fmt: skip
    return Finding(
        "attribution-as-untrained",
        "info",
        f"{said}, with the trained ones {_shown(share)}: what there is of it in the centre may be "
        "the architecture's doing.",
        facts=facts,
    )


def _shown(score: Score) -> str:
    ends = f"{percent(score['low'])} to {percent(score['high'])}"
    return f"{percent(score['value'])} ({ends})"


def _number(value: float | None) -> float:
    assert value is not None, "an interval has both ends or none"
    return value
