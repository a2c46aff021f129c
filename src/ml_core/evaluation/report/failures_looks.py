"""What the model looks at, as the page shows it: saliency and visibility of explain.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.attribution.overlay import overlay
from ml_core.evaluation.attribution.plots import (
    METHOD_LABELS,
    VIEW_LABELS,
    plot_mean_maps,
    plot_share_in_centre,
    plot_visibility,
)
from ml_core.evaluation.report.failures_pictures import QUALITIES, read_levels
from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.gallery import ReadPatches
from ml_core.evaluation.report.slice_table import Score
from ml_core.page.picture import data_uri

MAX_EXAMPLES = 8


@dataclass(frozen=True)
class MethodRow:
    """How much of a method's attribution lies in the centre; `why_not` where there is none."""

    label: str
    share: Score
    random_weights: Score
    difference: Score
    correlation: float | None
    note: str
    why_not: str


@dataclass(frozen=True)
class SaliencyExample:
    """One patch with the raw probability, and by method a picture of it under its map."""

    index: int
    y_true: int
    y_prob: float
    overlays: Mapping[str, str]  # label of the method -> data URI


@dataclass(frozen=True)
class SaliencyPart:
    """What the page shows of explain.json's saliency."""

    n: int
    share_of_area: float
    methods: Sequence[MethodRow]
    examples: Sequence[SaliencyExample]
    figures: Sequence[FigureBlock]


@dataclass(frozen=True)
class ViewRow:
    """The scores on one view of the patches, and how far they are from those on whole ones."""

    name: str
    label: str
    metrics: Mapping[str, Score]
    difference: Mapping[str, Score]


@dataclass(frozen=True)
class VisibilityPart:
    """What the page shows of explain.json's visibility."""

    n: int
    rows: Sequence[ViewRow]
    figures: Sequence[FigureBlock]


def build_saliency_part(
    content: Mapping[str, Any],
    anchor: str,
    source: str,
    split: str,
    read_patches: ReadPatches | None,
) -> SaliencyPart:
    """Return figures, numbers and examples; raises KeyError, TypeError or ValueError.

    Without `read_patches`, and of patches that it cannot read, there are no examples.
    """
    methods = content["methods"]
    figures = []
    if any("why_not" not in method for method in methods.values()):
        figures = [
            figure_block(
                plot_share_in_centre(content), "share_in_centre", anchor,
                "How much of it lies in the centre",
                "Share of the attribution in the centre, trained and with random weights", source,
            ),
            figure_block(
                plot_mean_maps(content), "mean_maps", anchor, "Where it lies on average",
                "Mean map of the attribution, trained and with random weights", source,
            ),
        ]  # fmt: skip
    return SaliencyPart(
        n=int(content["n"]),
        share_of_area=float(content["centre"]["share_of_area"]),
        methods=[_method(METHOD_LABELS.get(name, name), m) for name, m in methods.items()],
        examples=_examples(content["examples"][:MAX_EXAMPLES], split, read_patches),
        figures=figures,
    )


def build_visibility_part(content: Mapping[str, Any], anchor: str, source: str) -> VisibilityPart:
    """Return the scores by what of a patch is shown; raises KeyError, TypeError or ValueError."""
    views = content["views"]
    rows = [
        ViewRow(
            name,
            VIEW_LABELS.get(name, name.replace("_", " ")),
            {metric: Score.of(score) for metric, score in view["metrics"].items()},
            {metric: Score.of(score) for metric, score in (view.get("difference") or {}).items()},
        )
        for name, view in views.items()
    ]
    figure = figure_block(
        plot_visibility(content), "visibility", anchor, "With part of the patch hidden",
        "ROC-AUC with the whole patch, its centre, its ring, and parts of other patches", source,
    )  # fmt: skip
    return VisibilityPart(int(content["n"]), rows, [figure])


def _method(label: str, method: Mapping[str, Any]) -> MethodRow:
    if "why_not" in method:
        none = Score(None)
        return MethodRow(label, none, none, none, None, "", str(method["why_not"]))
    return MethodRow(
        label,
        Score.of(method["share_in_centre"]),
        Score.of(method["random_weights"]),
        Score.of(method["difference"]),
        method["correlation_with_random"],
        str(method.get("note") or ""),
        "",
    )


def _examples(
    written: Sequence[Mapping[str, Any]], split: str, read_patches: ReadPatches | None
) -> list[SaliencyExample]:
    if read_patches is None:
        return []
    places = [(split, int(each["index"])) for each in written]
    levels, _ = read_levels(read_patches, places)
    return [
        SaliencyExample(
            index=place[1],
            y_true=int(each["y_true"]),
            y_prob=float(each["y_prob"]),
            overlays={
                label: data_uri(overlay(levels[place], each[name]), QUALITIES[0])
                for name, label in METHOD_LABELS.items()
                if each.get(name) is not None
            },
        )
        for place, each in zip(places, written, strict=True)
        if place in levels
    ]
