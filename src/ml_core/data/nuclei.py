"""Drawn nuclei: libraries of small windows that a patch of drawn tissue is put together from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]  # float32 where there is one per pixel of a patch
Bools = npt.NDArray[np.bool_]

NUM_GRADES = 6  # tumours of different slides differ in size, darkness and shape of their nuclei
STAMPS_PER_GRADE = 64
NUM_LYMPHOCYTES, NUM_PALE = 128, 64
NUM_ANGLES, STAMPS_PER_ANGLE = 16, 8  # nuclei of stroma lie along its fibres


@dataclass(frozen=True)
class Stamps:
    """Nuclei in small windows: amounts of stain, and where the nucleus is."""

    haematoxylin: Floats  # (K, W, W)
    eosin: Floats  # (K, W, W), of the cell around the nucleus
    mask: Bools  # (K, W, W)


def draw_lymphocytes(rng: np.random.Generator) -> Stamps:
    """Return small, round, dark, even nuclei, then larger pale ones with a dark rim.

    The pale ones, of germinal centres, have the colour of tumour nuclei but not their size, shape
    and nucleoli: without them the colour of the centre would give the label away.
    """
    width = 13
    dark, dark_depth = _draw_outlines(
        rng, NUM_LYMPHOCYTES, width, radius=(3.0, 4.0), aspect=(1.0, 1.25), rough=0.04
    )
    clumps = 1 + 0.12 * rng.standard_normal(dark.shape)
    dark *= rng.uniform(1.3, 1.9, (NUM_LYMPHOCYTES, 1, 1)) * clumps
    pale, pale_depth = _draw_outlines(
        rng, NUM_PALE, width, radius=(3.8, 4.8), aspect=(1.0, 1.3), rough=0.04
    )
    rim = np.exp(-(((pale_depth - 0.8) / 0.8) ** 2))
    pale *= rng.uniform(0.9, 1.5, (NUM_PALE, 1, 1)) * (0.65 + 0.4 * rim)
    amount = np.concatenate([dark, pale])
    return _stamps(amount, np.zeros_like(amount), np.concatenate([dark_depth, pale_depth]) > 0)


def draw_spindles(rng: np.random.Generator) -> Stamps:
    """Return long thin nuclei, `STAMPS_PER_ANGLE` for each of `NUM_ANGLES` directions."""
    num = NUM_ANGLES * STAMPS_PER_ANGLE
    angle = np.repeat(np.arange(NUM_ANGLES) * np.pi / NUM_ANGLES, STAMPS_PER_ANGLE)
    inside, depth = _draw_outlines(
        rng, num, 19, radius=(3.2, 4.2), aspect=(2.6, 5.0), rough=0.05, angle=angle
    )
    amount = rng.uniform(0.8, 1.3, (num, 1, 1)) * inside
    return _stamps(amount, np.zeros_like(amount), depth > 0)


def draw_tumour(rng: np.random.Generator) -> Stamps:
    """Return large, irregular nuclei with coarse chromatin and nucleoli, grade by grade."""
    num, width = STAMPS_PER_GRADE, 27
    haematoxylin, eosin, masks = [], [], []
    for grade in range(NUM_GRADES):
        share = grade / (NUM_GRADES - 1)
        low = 4.9 + 1.0 * share
        inside, depth = _draw_outlines(
            rng, num, width, radius=(low, low + 2.0), aspect=(1.0, 1.5), rough=0.07 + 0.05 * share
        )
        coarse = np.kron(rng.standard_normal((num, 9, 9)), np.ones((1, 3, 3)))
        rim = np.exp(-(((depth - 0.8) / 0.8) ** 2))
        chromatin = 0.75 + 0.2 * coarse + 0.45 * rim
        amount = rng.uniform(0.75, 1.35, (num, 1, 1)) * inside * chromatin.clip(0.2)
        amount += inside * _draw_nucleoli(rng, num, width)
        cell = soft_step((depth + rng.uniform(2.0, 3.5, (num, 1, 1))) * 1.5) * (1 - 0.6 * inside)
        haematoxylin.append(amount + 0.12 * cell)
        eosin.append(0.3 * cell)
        masks.append(depth > 0)
    return _stamps(np.concatenate(haematoxylin), np.concatenate(eosin), np.concatenate(masks))


def _draw_nucleoli(rng: np.random.Generator, num: int, width: int) -> Floats:
    pixels = np.arange(width) - width // 2
    total = np.zeros((num, width, width))
    for _ in range(2):
        y, x = rng.normal(0, 1.6, (2, num, 1))
        size = rng.uniform(0.8, 1.2, (num, 1, 1))
        square = (pixels[:, None] - y[:, :, None]) ** 2 + (pixels - x)[:, None, :] ** 2
        total += rng.uniform(0.3, 1.3, (num, 1, 1)) * np.exp(-square / (2 * size**2))
    return total


def _draw_outlines(
    rng: np.random.Generator,
    num: int,
    width: int,
    *,
    radius: tuple[float, float],
    aspect: tuple[float, float],
    rough: float,
    angle: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Return how far pixels belong to the nucleus (0..1), and their depth below its outline.

    An ellipse of mean `radius` and axes in ratio `aspect`, its outline uneven by about `rough`.
    """
    pixels = np.arange(width) - width // 2
    shift_y, shift_x = rng.uniform(-0.5, 0.5, (2, num, 1, 1))
    turn = rng.uniform(0, np.pi, num) if angle is None else angle
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    y, x = pixels[:, None] + shift_y, pixels + shift_x
    stretch = np.sqrt(rng.uniform(*aspect, (num, 1, 1)))
    along, across = (cos * x + sin * y) / stretch, (cos * y - sin * x) * stretch
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for lobes in (2, 3, 4, 5):
        phase = rng.uniform(0, 2 * np.pi, (num, 1, 1))
        outline += rough * rng.standard_normal((num, 1, 1)) * np.cos(lobes * theta + phase)
    distance = np.hypot(along, across)
    depth = rng.uniform(*radius, (num, 1, 1)) * outline - distance
    # what a step along the outline's normal changes, so that thin nuclei have sharp edges too
    slope = np.hypot(along / stretch, across * stretch) / np.maximum(distance, 1e-6)
    depth /= np.maximum(slope, 0.2)
    return soft_step(3 * depth), depth


def _stamps(haematoxylin: Floats, eosin: Floats, mask: Bools) -> Stamps:
    return Stamps(haematoxylin.astype(np.float32), eosin.astype(np.float32), mask)


def soft_step(field: Floats) -> Floats:
    """Return a soft step from 0 to 1 at 0 (logistic), in the dtype of `field`."""
    step: Floats = 1 / (1 + np.exp(-field))
    return step
