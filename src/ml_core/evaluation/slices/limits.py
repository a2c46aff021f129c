"""What a slice is too small for, in words."""

from __future__ import annotations

import numpy as np

from ml_core.evaluation.slices.error_counts import Bools
from ml_core.evaluation.slices.few_slides import MIN_SLIDES
from ml_core.evaluation.slices.known_slides import KnownSlides
from ml_core.metrics.arrays import Ints

_ONE, _MANY = ("normal patch", "tumour"), ("normal patches", "tumours")


def too_small(n: int, positives: int, min_patches: int, min_per_class: int) -> str:
    """Return why a slice of `n` patches with so many tumours is not scored; "" where it is."""
    if n < max(min_patches, 1):
        return f"{_counted(n, 'patch', 'patches')}; {max(min_patches, 1)} are needed."
    if max(positives, n - positives) < min_per_class:
        there = f"{_of_class(1, positives)}, {_of_class(0, n - positives)}"
        return f"{there}; {min_per_class} of a class are needed."
    return ""


def short_classes(n: int, positives: int, min_per_class: int) -> str:
    """Return which class is too small for a score of its own; "" where none is."""
    for label, count, rate in ((0, n - positives, "specificity"), (1, positives, "recall")):
        if count < min_per_class:
            needed = f", of {min_per_class} needed" if count else ""
            return (
                f"{_of_class(label, count)}{needed}: "
                f"{rate} and what takes both classes are not scored."
            )
    return ""


def missing_rest(labels: Ints, inside: Bools, min_per_class: int) -> str:
    """Return what the slice cannot be compared with; "" where the rest has both classes."""
    if inside.all():
        return "It holds every patch: there is no rest to compare with."
    normal, tumours = np.bincount(labels[~inside], minlength=2).tolist()
    short = [
        _of_class(label, count)
        for label, count in ((1, tumours), (0, normal))
        if count < min_per_class
    ]
    if not short:
        return ""
    return (
        f"The rest has {' and '.join(each.lower() for each in short)}, of {min_per_class} needed "
        "to compare with."
    )


def few_slides(labels: Ints, inside: Bools, slides: KnownSlides, min_per_class: int) -> str:
    """Return why the slides of a split do not count for this slice; "" where they do, or are none.

    To tell the spread from slide to slide, each class that is compared takes MIN_SLIDES slides, in
    the slice and outside.
    """
    if not slides.are_enough:
        return ""
    for side, whose in ((inside, "Its"), (~inside, "The other")):
        for label in (0, 1):
            mask = side & (labels == label)
            num_slides = slides.num_of(mask) or 0
            if mask.sum() >= max(min_per_class, 1) and num_slides < MIN_SLIDES:
                return (
                    f"{whose} {_MANY[label]} are of {_counted(num_slides, 'slide', 'slides')}, of "
                    f"{MIN_SLIDES} needed to tell how much slides differ: patches are compared one "
                    "by one, so this speaks of these slides, not of others like them."
                )
    return ""


def _of_class(label: int, count: int) -> str:
    return _counted(count, _ONE[label], _MANY[label])


def _counted(count: int, one: str, many: str) -> str:
    return f"{count or 'No'} {one if count == 1 else many}"
