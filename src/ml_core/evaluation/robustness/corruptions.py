"""What is done to patches, how strongly, and why so strongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.robustness.blur import blur
from ml_core.evaluation.robustness.jpeg import save_as_jpeg
from ml_core.evaluation.robustness.levels import rotate_hue, scale_brightness, scale_contrast
from ml_core.evaluation.robustness.noise import add_noise
from ml_core.evaluation.robustness.orientation import FLIPS, flip, rotate
from ml_core.evaluation.robustness.stains import scale_stain

Patches = npt.NDArray[np.uint8]
Change = Callable[[Patches, float], Patches]
Expect = Literal["flat", "falls"]

UNTOUCHED = "untouched"


@dataclass(frozen=True)
class Corruption:
    """One way to change patches: `strengths[0]` changes nothing, then they go from mild to severe.

    `expect` is "flat" where a sound model scores the same at every strength, "falls" where one may
    score less. `fact` is the fact of a patch that it moves, None where it moves none of them.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    change: Change
    expect: Expect
    fact: str | None
    shown: Callable[[float], str]

    def apply(self, patches: Patches, strength: float) -> Patches:
        """Return uint8 patches (N, H, W, 3), contiguous; at strengths[0] the very same."""
        assert patches.dtype == np.uint8 and patches.ndim == 4, "patches are grey levels, in RGB"
        if strength == self.strengths[0]:
            return patches
        return np.ascontiguousarray(self.change(patches, strength))

    def label(self, strength: float) -> str:
        """Return a strength as a reader would write it: "× 0.8", "quality 50"."""
        return UNTOUCHED if strength == self.strengths[0] else self.shown(strength)


def _times(factor: float) -> str:
    return f"× {factor:g}"


# Where the strengths are from; each was looked at on real patches. The last ones are meant to be
# more than a laboratory lets pass, so that a curve shows where a model gives way.
CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption(
        "rotation", "degrees", (0, 90, 180, 270), rotate, "flat", None,
        lambda degrees: f"{degrees:g}°",
    ),
    Corruption("flip", "", (0, 1, 2), flip, "flat", None, lambda way: FLIPS[int(way)]),
    # A lens of NA 0.75 that is 1 µm out of focus spreads a point over a disc of radius
    # tan(asin 0.75) = 1.13 µm, with a standard deviation of half that along each axis: 0.6 of
    # PCam's pixels of 0.97 µm. So these are about 1, 2, 3, 3.5 and 5 µm out of focus.
    Corruption(
        "blur", "sigma, pixels", (0, 0.5, 1, 1.5, 2, 3), blur, "falls", "focus",
        lambda sigma: f"sigma {sigma:g}",
    ),
    # Hamamatsu's scanners save at 80 unless told otherwise, Aperio's slides say Q=70 or Q=30 in
    # their header; 25 down to 7 is the benchmark of Zhang et al., MICCAI 2022, on PCam (arXiv
    # 2206.14973).
    Corruption(
        "jpeg", "quality", (100, 80, 70, 50, 30, 15), save_as_jpeg, "falls", "blockiness",
        lambda quality: f"quality {quality:g}",
    ),
    # 0.70 to 1.25 is MedMNIST-C's range for histology (Di Salvo et al., arXiv 2406.17536), as is
    # a contrast of 0.5 to 1.6.
    Corruption(
        "brightness", "factor", (1, 0.9, 1.1, 0.75, 1.25, 0.6, 1.4),
        scale_brightness, "falls", "brightness", _times,
    ),
    Corruption(
        "contrast", "factor", (1, 0.8, 1.25, 0.6, 1.6), scale_contrast, "falls", "contrast", _times,
    ),
    # Six laboratories that stained the same tissue differed 1.56 times in haematoxylin over eosin
    # (0.57 to 0.89; Gray et al., J Clin Pathol 68:192-199, 2015): 0.8 to 1.25 from their middle.
    Corruption(
        "haematoxylin", "factor", (1, 0.8, 1.25, 0.65, 1.5, 0.5, 2),
        partial(scale_stain, stain="haematoxylin"), "falls", "haematoxylin", _times,
    ),
    Corruption(
        "eosin", "factor", (1, 0.8, 1.25, 0.65, 1.5, 0.5, 2),
        partial(scale_stain, stain="eosin"), "falls", "eosin", _times,
    ),
    # Zhang et al. start at 18 degrees and go on to 90, where tissue is green.
    Corruption(
        "hue", "degrees", (0, -10, 10, -20, 20, -40, 40), rotate_hue, "falls", "hue",
        lambda degrees: f"{degrees:+g}°".replace("-", "−"),
    ),
    Corruption(
        "noise", "sigma, grey levels", (0, 5, 10, 20), add_noise, "falls", "focus",
        lambda sigma: f"sigma {sigma:g}",
    ),
)  # fmt: skip


def corruptions_for(height: int, width: int) -> tuple[Corruption, ...]:
    """Return what of CORRUPTIONS patches of `height` x `width` can go through.

    A quarter turn would change the shape of those that are not square: they are turned by 180
    degrees only.
    """
    if height == width:
        return CORRUPTIONS
    return tuple(
        replace(each, strengths=(0, 180)) if each.name == "rotation" else each
        for each in CORRUPTIONS
    )
