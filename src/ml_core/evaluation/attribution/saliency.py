"""Where a model looks: its attribution inside the central square, against random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ml_core.evaluation.attribution.against_random import compare_maps
from ml_core.evaluation.attribution.centre import CENTRE_SIDE, Box, centre_box, share_of_area
from ml_core.evaluation.attribution.patch_maps import (
    CAMS,
    METHODS,
    Explainer,
    PatchMaps,
    ReadPatches,
)
from ml_core.evaluation.attribution.random_weights import NoRandomWeights, random_weights
from ml_core.evaluation.attribution.saliency_examples import saliency_examples
from ml_core.evaluation.attribution.saliency_findings import saliency_findings
from ml_core.evaluation.keyed_order import keyed_order
from ml_core.findings import Finding
from ml_core.metrics.arrays import Floats, Ints

NUM_DRAWS = 8  # of random weights: the means of their patches make an interval of 7 degrees
_PURPOSE = 1  # of the keyed order


@dataclass(frozen=True)
class Saliency:
    """What `measure_saliency` returns; `to_dict` is JSON-able.

    `methods` is by name what `compare_maps` returns, with "layer" and "note" for the two CAMs, or
    {"why_not"}. `examples` are patches with the raw probability of the model, not calibrated, and
    their maps, above 0 what speaks for the class that it calls.
    """

    n: int
    box: Box
    share_of_area: float
    grid: int  # windows of the occlusion along a side
    level: float
    methods: dict[str, dict[str, Any]]
    examples: list[dict[str, Any]]
    findings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """Return the part "saliency" of explain.json."""
        return {
            "n": self.n,
            "centre": {"box": list(self.box), "share_of_area": self.share_of_area},
            "grid": self.grid,
            "level": self.level,
            "methods": self.methods,
            "examples": self.examples,
            "findings": [asdict(finding) for finding in self.findings],
        }


def measure_saliency(
    model: nn.Module,
    read: ReadPatches,
    index: Ints,
    y_true: Ints,
    *,
    device: torch.device | str,
    seed: int,
    num_examples: int = 8,
    num_draws: int = NUM_DRAWS,
    box: float = CENTRE_SIDE,
    grid: int = 6,
    level: float = 0.95,
    batch_size: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Saliency:
    """Return how much of what decides for `model` lies in the centre, with random weights beside.

    `index` (n,) names the patches, labels `y_true` (n,); `read` returns those of some index as
    (k, H, W, 3). `box` is the side of the centre as a share of the patch's. Three methods: Grad-CAM
    and HiResCAM of the last convolutional map (`activation_maps`), of the model without averaged
    orientations; occlusion (`occlusion_maps`), of the model as it is used, each window covered by
    that of another patch, drawn by key whatever its label.

    The patches are dealt out by key among `num_draws` networks of random weights
    (`random_weights`), each of which explains its share: together they cost what one would, and
    the spread between them is in the interval. Examples are the first by key, of both classes in
    turn, so that nobody chose them; their occlusion has EXAMPLE_GRID windows along a side.

    Costs 2 n (grid**2 + 2) patches through the model, and 289 for each example: 7,176 for 64
    patches, a grid of 6 and 8 examples. `progress` is called with the number of patches explained,
    2 n in all. The result depends on (seed, patches), not on their order. A model with a layer that
    cannot be drawn anew has examples, and "why_not" for each method. Raises ValueError for fewer
    than two patches, a patch given twice, and sides shorter than a grid.
    """
    if len(index) < 2:
        raise ValueError(f"there are {len(index)} patches to explain; at least two are needed.")
    order = keyed_order(index, seed, _PURPOSE)
    index, y_true = index[order], y_true[order]
    lenders = np.roll(index, 1)  # a circle, so that no patch is covered by itself
    draw = np.arange(len(index)) % min(num_draws, len(index))
    explainer = Explainer(read, grid, device, batch_size, progress)
    trained = explainer.explain(model, index, lenders)
    why_not = dict(trained.why_not)
    random: dict[str, Floats] = {}
    try:
        random = _random_maps(model, explainer, trained, index, lenders, draw, seed)
    except NoRandomWeights as reason:
        why_not |= dict.fromkeys(trained.maps, str(reason))
    height, width = read(index[:1]).shape[1:3]
    centre = centre_box(height, width, box)
    area = share_of_area(centre, height, width)
    methods: dict[str, dict[str, Any]] = {
        name: {
            **_about(trained, name),
            **compare_maps(trained.maps[name], maps, draw, y_true, centre, (height, width), level),
        }
        for name, maps in random.items()
    }
    methods |= {name: {"why_not": reason} for name, reason in why_not.items()}
    return Saliency(
        n=len(index),
        box=centre,
        share_of_area=area,
        grid=grid,
        level=level,
        methods={name: methods[name] for name in METHODS},
        examples=saliency_examples(model, explainer, trained, index, y_true, num_examples),
        findings=saliency_findings(methods, area),
    )


def _random_maps(
    model: nn.Module,
    explainer: Explainer,
    trained: PatchMaps,
    index: Ints,
    lenders: Ints,
    draw: Ints,
    seed: int,
) -> dict[str, Floats]:
    """Return maps (n, h, w) by method, each patch's of the random weights with its number."""
    random = {name: np.empty_like(maps) for name, maps in trained.maps.items()}
    for number in np.unique(draw):  # one network at a time, whatever its size
        dealt = draw == number
        untrained = random_weights(model, seed, int(number))
        explained = explainer.explain(untrained, index[dealt], lenders[dealt])
        for name, maps in explained.maps.items():
            random[name][dealt] = maps
    return random


def _about(trained: PatchMaps, name: str) -> dict[str, Any]:
    if name not in CAMS:
        return {}
    note = "of the patch as it lies: the model averages orientations, these maps do not"
    return {"layer": trained.layer, "note": note if trained.averages else ""}
