"""What a model scores when it is shown only the centre of each patch, or only what surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.attribution.centre import CENTRE_SIDE, Box, centre_box
from ml_core.evaluation.attribution.visibility_findings import visibility_findings
from ml_core.evaluation.keyed_order import keyed_order
from ml_core.evaluation.predictions import sigmoid
from ml_core.evaluation.robustness.paired_scores import Scoring
from ml_core.metrics.arrays import Floats, Ints

Patches = npt.NDArray[np.uint8]

VIEWS = ("whole", "centre_only", "ring_only", "centre_on_other_ring", "ring_on_other_centre")
_PURPOSE = 2  # of the keyed order
_BLOCK = 256  # patches seen in all their views at once: 35 MB


def measure_visibility(
    predict: Callable[[Patches], Floats],
    read: Callable[[npt.NDArray[np.int64]], Patches],
    index: Ints,
    y_true: Ints,
    threshold: float,
    *,
    fill: Sequence[float],
    seed: int,
    calibrate: Callable[[Floats], Floats] = sigmoid,
    num_resamples: int = 1000,
    box: float = CENTRE_SIDE,
    level: float = 0.95,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Return the part "visibility" of explain.json: scores by what of each patch is shown.

    `predict` turns patches (k, H, W, 3) into raw log-odds of tumour (k,), which make the ROC-AUC;
    `calibrate` turns log-odds (n,) into the probabilities that `threshold` is for; `read` returns
    the patches of some index. The views of a patch of `index` (n,), each scored with its label in
    `y_true` (n,):

    whole                 the patch as it is
    centre_only           the ring around the central box is `fill`, levels 0..255
    ring_only             the central box is `fill`
    centre_on_other_ring  the ring is that of another patch
    ring_on_other_centre  the central box is that of another patch

    A flat area is something that no patch has; in the last two everything is tissue, and what is
    wrong is the seam. Who lends to whom follows from (seed, patches), whatever their labels: each
    patch lends once. A label is made by the centre, so a model that follows it keeps its scores in
    both views of the centre and is at chance (ROC-AUC 0.5) in both of the ring, but for what tissue
    around a tumour gives away.

    "metrics" of a view and the "difference" to "whole", patch by patch the same ones, are those of
    `Scoring`. Costs 5 n patches through `predict`; `progress` is called with
    the number of patches done. Raises ValueError for fewer than two patches, for a patch given
    twice, and for logits that are not finite.
    """
    if len(index) < 2:
        raise ValueError(f"there are {len(index)} patches; two are needed to swap centres.")
    order = keyed_order(index, seed, _PURPOSE)
    index, y_true = index[order], y_true[order]
    lenders = np.roll(index, 1)  # a circle, so that no patch borrows from itself
    logits: dict[str, list[Floats]] = {view: [] for view in VIEWS}
    for start in range(0, len(index), _BLOCK):
        block = slice(start, start + _BLOCK)
        patches, others = read(index[block]), read(lenders[block])
        centre = centre_box(patches.shape[1], patches.shape[2], box)
        for view in VIEWS:
            logits[view].append(predict(_seen(view, patches, others, centre, fill)))
        if progress is not None:
            progress(len(patches))
    answers = {view: _finite(np.concatenate(parts), view) for view, parts in logits.items()}
    scoring = Scoring(y_true, threshold, calibrate, num_resamples, seed, level)
    views = {view: _scores(scoring, answers[view], answers["whole"]) for view in VIEWS}
    return {
        "n": len(index),
        "centre": {"box": list(centre)},
        "fill": [float(value) for value in fill],
        "level": level,
        "num_resamples": num_resamples,
        "views": views,
        "findings": visibility_findings(views),
    }


def _seen(
    view: str, patches: Patches, others: Patches, centre: Box, fill: Sequence[float]
) -> Patches:
    """Return `patches` (n, H, W, 3) as `view` shows them."""
    if view == "whole":
        return patches
    rows, columns = slice(centre.top, centre.bottom), slice(centre.left, centre.right)
    flat = np.broadcast_to(np.rint(fill).astype(np.uint8), patches.shape)
    around, inside = {
        "centre_only": (flat, patches),
        "ring_only": (patches, flat),
        "centre_on_other_ring": (others, patches),
        "ring_on_other_centre": (patches, others),
    }[view]
    seen = np.array(around)
    seen[:, rows, columns] = inside[:, rows, columns]
    return seen


def _scores(scoring: Scoring, logits: Floats, whole: Floats) -> dict[str, Any]:
    metrics, difference = scoring.metrics(logits), scoring.differences(logits, whole)
    return {
        "metrics": {name: score.to_dict() for name, score in metrics.items()},
        "difference": {name: score.to_dict() for name, score in difference.items()},
    }


def _finite(logit: Floats, view: str) -> Floats:
    if not np.isfinite(logit).all():
        bad = int((~np.isfinite(logit)).sum())
        raise ValueError(f"{bad} of {len(logit)} logits of the view {view!r} are not finite.")
    return logit
