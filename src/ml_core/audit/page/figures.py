"""Which figures the page holds, what each is called, and what it says to who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ml_core.audit.page.columns import shown_values
from ml_core.audit.page.difference_plots import plot_aucs, plot_effects
from ml_core.audit.page.distribution_plots import Panel, drawn_range, plot_distributions
from ml_core.audit.page.label_plots import (
    LabelCounts,
    plot_label_counts,
    plot_labels_along_file,
    plot_positives_per_batch,
)
from ml_core.audit.page.measured import find_aucs, find_effects
from ml_core.audit.page.plot_style import CLASS_LINES, split_lines
from ml_core.page.text import percent

BATCH_SIZE = 64  # the default of `data.batch_size`
MAX_EFFECTS = 22  # rows that can be read
CHANNELS = {"mean_r": "red", "mean_g": "green", "mean_b": "blue"}
STAINS = {
    "haematoxylin": "Haematoxylin colours nuclei.",
    "eosin": "Eosin colours cytoplasm and matrix.",
}
QUALITY = {
    "focus": "focus, log10(1 + variance of the Laplacian); left is blurred",
    "blockiness": "JPEG blockiness; about 1 is none",
    "tissue_share": "share of the patch that is tissue",
}


@dataclass(frozen=True)
class PageFigure:
    """`name` is that of its file, `description` is read aloud, `note` says how to read it."""

    name: str
    title: str
    description: str
    note: str
    figure: Figure


def build_figures(
    audit: Mapping[str, Any], patches: pd.DataFrame, where: Mapping[str, slice]
) -> list[PageFigure]:
    """Return the figures that the table and the findings give; one without data is left out."""
    if len(patches) == 0:
        return []
    return [
        *_label_figures(patches, where),
        *_colour_figures(patches, where),
        *_quality_figures(patches, where),
        *_difference_figures(audit.get("findings", ()), list(where)),
    ]


def _label_figures(patches: pd.DataFrame, where: Mapping[str, slice]) -> Iterator[PageFigure]:
    labels = patches["label"].to_numpy()
    counts = {split: count_labels(labels[rows]) for split, rows in where.items()}
    said = "; ".join(
        f"{split}: {count.normal:,} normal, {count.tumour:,} tumour, {count.unknown:,} without"
        for split, count in counts.items()
    )
    yield PageFigure(
        "label_counts", "Labels", f"Share of each label by split. {said}.",
        "Splits of different balance need a threshold and a prior that say so.",
        plot_label_counts(counts),
    )  # fmt: skip
    first, share = next(
        ((split, c.share_tumour) for split, c in counts.items() if not math.isnan(c.share_tumour)),
        ("", math.nan),
    )
    if not first:
        return
    none = (1 - share) ** BATCH_SIZE
    yield PageFigure(
        "positives_per_batch", "Tumour patches per batch",
        f"Chance of each number of tumour patches in a batch of {BATCH_SIZE} of {first}: about "
        f"{BATCH_SIZE * share:.1f} as they come, {BATCH_SIZE / 2:g} when balanced.",
        f"{first}: about {BATCH_SIZE * share:.1f} of {BATCH_SIZE} as they come"
        f"{f' ({percent(none, 2)} of batches hold none)' if none > 1e-4 else ''}, "
        f"{BATCH_SIZE / 2:g} when sampling is balanced.",
        plot_positives_per_batch(share, BATCH_SIZE),
    )  # fmt: skip
    yield PageFigure(
        "labels_along_file", "Labels along the file",
        "Share of tumour in equal stretches of each split's file.",
        "A flat line is a shuffled file; steps mean that rows are sorted, and that any subset of "
        "neighbouring rows is biased.",
        plot_labels_along_file({split: labels[rows] for split, rows in where.items()}),
    )  # fmt: skip


def _colour_figures(patches: pd.DataFrame, where: Mapping[str, slice]) -> Iterator[PageFigure]:
    held = {split: rows for split, rows in where.items() if rows.stop > rows.start}
    channels = {column: name for column, name in CHANNELS.items() if column in patches}
    if channels:
        panels = [
            Panel(name, _by_split(patches, column, held), (0, 255))
            for column, name in channels.items()
        ]
        yield PageFigure(
            "intensities", "Intensity by channel and split",
            f"Histograms of the mean red, green and blue of each patch, for {', '.join(held)}.",
            "Mean grey level of each patch. Peaks at 0 and 255 are black and white patches.",
            plot_distributions(panels, split_lines(list(where)), "mean grey level"),
        )  # fmt: skip
    for stain, colours in STAINS.items():
        if stain not in patches:
            continue
        values = shown_values(patches, stain)
        labels = patches["label"].to_numpy()
        panels = [Panel(split, _by_class(values[r], labels[r])) for split, r in held.items()]
        panels = _on_one_scale(panels)
        yield PageFigure(
            stain, f"{stain.capitalize()} by class and split",
            f"Histograms of the mean amount of {stain} of normal and of tumour patches, for "
            f"{', '.join(held)}.",
            f"{colours} Where the classes lie apart, colour alone tells them apart.",
            plot_distributions(panels, CLASS_LINES, f"mean {stain} (optical density)"),
        )  # fmt: skip


def _quality_figures(patches: pd.DataFrame, where: Mapping[str, slice]) -> Iterator[PageFigure]:
    panels = [
        Panel(title, _by_split(patches, column, where))
        for column, title in QUALITY.items()
        if column in patches
    ]
    if panels:
        yield PageFigure(
            "quality", "Focus, blockiness and tissue",
            "Histograms of focus, JPEG blockiness and tissue share by split.",
            "Splits that differ here were scanned, compressed or chosen differently.",
            plot_distributions(panels, split_lines(list(where))),
        )  # fmt: skip


def _difference_figures(
    findings: Sequence[Mapping[str, Any]], splits: Sequence[str]
) -> Iterator[PageFigure]:
    effects = find_effects(findings)
    if effects:
        largest = sorted(effects, key=lambda name: -_size(effects[name]))[:MAX_EFFECTS]
        shown = {name: effects[name] for name in effects if name in largest}
        said = ", ".join(f"{pair} {delta:+.2f}" for pair, delta in effects[largest[0]].items())
        yield PageFigure(
            "drift", "How splits differ",
            f"Cliff's delta between splits by statistic. The largest is {largest[0]}: {said}.",
            "Cliff’s delta between patches of one class: 0 is alike, ±1 is no overlap, ±0.47 is "
            "large. A plus: larger in the second split.",
            plot_effects(shown),
        )  # fmt: skip
    rows = find_aucs(findings)
    if rows:
        said = "; ".join(f"{row.name} {row.split} {row.auc:.3f}" for row in rows)
        yield PageFigure(
            "shortcuts", "Shortcuts to the label", f"AUC by property: {said}.",
            "How well each alone ranks tumour above normal, with its interval. A model must beat "
            "these before it has learnt tissue.",
            plot_aucs(rows, splits),
        )  # fmt: skip


def _size(row: Mapping[str, float]) -> float:
    return max(map(abs, row.values()))


def count_labels(labels: Any) -> LabelCounts:
    """Return how many labels are 0, 1 and anything else."""
    normal, tumour = int((labels == 0).sum()), int((labels == 1).sum())
    return LabelCounts(normal, tumour, len(labels) - normal - tumour)


def _by_split(patches: pd.DataFrame, column: str, where: Mapping[str, slice]) -> dict[str, Any]:
    values = shown_values(patches, column)
    return {split: values[rows] for split, rows in where.items() if rows.stop > rows.start}


def _by_class(values: Any, labels: Any) -> dict[str, Any]:
    return {"normal": values[labels == 0], "tumour": values[labels == 1]}


def _on_one_scale(panels: Sequence[Panel]) -> list[Panel]:
    """Return the panels with the same range, so that splits can be compared by eye."""
    values = [line[np.isfinite(line)] for panel in panels for line in panel.lines.values()]
    values = [line for line in values if len(line)]
    limits = drawn_range(values) if values else None
    return [Panel(panel.title, panel.lines, limits) for panel in panels]
