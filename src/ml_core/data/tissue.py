"""Drawn tissue: patches that look like lymph node in H&E, some with tumour, from random numbers.

Everything is drawn as amounts of haematoxylin and eosin, which a slide's stains turn into colours.
Nuclei are stamps from small libraries, added into whole batches of patches at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ml_core.data.nuclei import (
    NUM_ANGLES,
    NUM_GRADES,
    NUM_LYMPHOCYTES,
    NUM_PALE,
    STAMPS_PER_ANGLE,
    STAMPS_PER_GRADE,
    Bools,
    Floats,
    draw_lymphocytes,
    draw_spindles,
    draw_tumour,
    soft_step,
)

Ints = npt.NDArray[np.int64]

PATCH_SIZE = 96
_MIDDLE = (PATCH_SIZE - 1) / 2
CENTRE = slice(32, 64)  # rows and columns in which a tumour nucleus makes a patch positive

# Pixels are about 1 µm, as in PCam.
_LYMPHOCYTE_SPACING = 7.4
_SPINDLE_SPACING = 15.0
_TUMOUR_SPACING = 12.0
_MARGIN = 12  # how far outside a patch a nucleus may lie and still reach into it

# Optical densities (R, G, B) of one unit of stain; each slide has its own, near these.
_HAEMATOXYLIN = (0.66, 0.88, 0.40)
_EOSIN = (0.12, 0.62, 0.30)


@dataclass(frozen=True)
class Slides:
    """What the patches of a slide have in common; arrays have one entry per slide."""

    stains: Floats  # (S, 2, 3) optical density of one unit of haematoxylin and of eosin
    glass: Floats  # (S, 3) grey levels of empty glass
    fibrous: Floats  # (S,) leaning to stroma rather than lymphocytes
    grade: Ints  # (S,) which tumour
    darkness: Floats  # (S, 2) of normal and of tumour nuclei


@dataclass(frozen=True)
class _Nuclei:
    """Nuclei of a batch of patches; arrays have one entry per nucleus."""

    patch: Ints  # which patch of the batch
    y: Ints  # pixel at the stamp's middle; may lie outside the patch
    x: Ints
    stamp: Ints

    def where(self, keep: Bools) -> _Nuclei:
        return _Nuclei(self.patch[keep], self.y[keep], self.x[keep], self.stamp[keep])


def draw_slides(rng: np.random.Generator, num: int) -> Slides:
    """Return `num` slides with their own stains, brightness, tissue and tumour."""
    stains = np.array([_HAEMATOXYLIN, _EOSIN]) * rng.uniform(0.7, 1.25, (num, 2, 1))
    stains *= rng.uniform(0.86, 1.14, (num, 2, 3))
    glass = rng.uniform(228, 252, (num, 1)) + rng.uniform(-4, 3, (num, 3))
    return Slides(
        stains.astype(np.float32),
        glass.astype(np.float32),
        rng.normal(0, 0.5, num).astype(np.float32),
        rng.integers(0, NUM_GRADES, num),
        rng.uniform((0.6, 0.6), (1.15, 1.5), (num, 2)).astype(np.float32),
    )


class Tissue:
    """Draws patches; the stamps are made once, from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._lymphocytes = draw_lymphocytes(rng)
        self._spindles = draw_spindles(rng)
        self._tumour = draw_tumour(rng)

    def draw(
        self, rng: np.random.Generator, slides: Slides, slide: Ints, is_positive: Bools
    ) -> tuple[npt.NDArray[np.uint8], Bools]:
        """Return patches (B, 96, 96, 3) uint8 and where their tumour nuclei lie, (B, 96, 96).

        Tumour nuclei touch the centre 32 x 32 of a patch exactly where `is_positive` (B,) says so;
        most of the other patches hold tumour that stays outside it. `slide` (B,) is each one's.
        """
        num = len(slide)
        seed_y, seed_x = _choose_seeds(rng, is_positive)
        nest = _draw_nest(rng, is_positive, seed_y, seed_x)
        fibrous = slides.fibrous[slide] + rng.normal(0, 0.7, num).astype(np.float32)
        lymphoid = 0.9 * _noise(rng, num, 4) - fibrous[:, None, None]
        gaps = _draw_gaps(rng, num) * soft_step(-12 * (nest + 0.3))
        angle = rng.uniform(0, np.pi, num).astype(np.float32)

        tumour = _place_tumour(rng, nest, seed_y, seed_x, is_positive, slides.grade[slide])
        touching = _touches_centre(self._tumour.mask, tumour)
        tumour = tumour.where(is_positive[tumour.patch] | ~touching)
        lymphocytes = _place_lymphocytes(rng, lymphoid, nest, gaps)
        spindles = _place_spindles(rng, lymphoid, nest, gaps, angle)

        normal = _add_up(self._lymphocytes.haematoxylin, lymphocytes, num)
        normal += _add_up(self._spindles.haematoxylin, spindles, num)
        darkness = slides.darkness[slide] * rng.uniform(0.8, 1.25, (num, 2)).astype(np.float32)
        haematoxylin = (0.10 + 0.03 * _noise(rng, num, 32)) * (1 - gaps)
        haematoxylin += darkness[:, :1, None] * normal
        haematoxylin += darkness[:, 1:, None] * _add_up(self._tumour.haematoxylin, tumour, num)
        eosin = _draw_stroma(rng, angle, lymphoid, nest) * (1 - gaps)
        eosin += _add_up(self._tumour.eosin, tumour, num)
        mask = _add_up(self._tumour.mask.astype(np.float32), tumour, num) > 0
        return _stain(rng, haematoxylin, eosin, slides, slide), mask


def _choose_seeds(rng: np.random.Generator, is_positive: Bools) -> tuple[Floats, Floats]:
    """Return (y, x) around which tumour grows: in the centre of positives, else well outside."""
    num = len(is_positive)
    turn, away = rng.uniform(0, 2 * np.pi, num), rng.uniform(32, 54, num)
    inside = rng.uniform(-14, 14, (2, num))
    y = _MIDDLE + np.where(is_positive, inside[0], away * np.sin(turn))
    x = _MIDDLE + np.where(is_positive, inside[1], away * np.cos(turn))
    return y.astype(np.float32), x.astype(np.float32)


def _draw_nest(
    rng: np.random.Generator, is_positive: Bools, seed_y: Floats, seed_x: Floats
) -> Floats:
    """Return a smooth field (B, 96, 96), above 0 where tumour cells lie."""
    num = len(is_positive)
    pixels = np.arange(PATCH_SIZE, dtype=np.float32)
    # beside the centre nests are larger, so that a patch's share of tumour tells little
    widths = rng.uniform(10, 26, num) * np.where(is_positive, 1, 1.6)
    size = widths.astype(np.float32)[:, None, None]
    square = (pixels[:, None] - seed_y[:, None, None]) ** 2 + (
        pixels - seed_x[:, None, None]
    ) ** 2  # (B, 96, 96)
    nest: Floats = 2 * np.exp(-square / (2 * size**2)) - 1 + 0.45 * _noise(rng, num, 6)
    has_tumour = is_positive | (rng.random(num) < 0.7)
    nest[~has_tumour] = -1
    from_middle = np.hypot(pixels[:, None] - _MIDDLE, pixels - _MIDDLE)
    nest[~is_positive] -= 2 * np.exp(-((from_middle / 25) ** 6))
    return nest


def _draw_gaps(rng: np.random.Generator, num: int) -> Floats:
    """Return where there is no tissue, 0..1: vessels, fat, tears; rare in most patches."""
    threshold = rng.uniform(0.4, 3.0, num).astype(np.float32)
    gaps: Floats = np.clip(4 * (_noise(rng, num, 5) - threshold[:, None, None]), 0, 1)
    return gaps


def _draw_stroma(rng: np.random.Generator, angle: Floats, lymphoid: Floats, nest: Floats) -> Floats:
    """Return eosin (B, 96, 96): fibres along `angle` in stroma, little among other cells."""
    num = len(angle)
    pixels = np.arange(PATCH_SIZE, dtype=np.float32)
    across = np.sin(angle)[:, None, None] * pixels - np.cos(angle)[:, None, None] * pixels[:, None]
    pitch = rng.uniform(0.5, 1.1, num).astype(np.float32)[:, None, None]
    waves = np.sin(across * pitch + 2 * _noise(rng, num, 6))
    fine = np.sin(across * 2.3 * pitch + 3 * _noise(rng, num, 9))
    fibres = 0.75 + 0.22 * waves + 0.15 * fine + 0.12 * _noise(rng, num, 24)
    stroma = soft_step(-3 * lymphoid) * soft_step(-12 * (nest + 0.1))
    eosin: Floats = 0.32 + 0.06 * _noise(rng, num, 24) + stroma * (fibres - 0.32)
    return eosin


def _place_tumour(
    rng: np.random.Generator,
    nest: Floats,
    seed_y: Floats,
    seed_x: Floats,
    is_positive: Bools,
    grade: Ints,
) -> _Nuclei:
    y, x = _jittered_grid(rng, len(nest), _TUMOUR_SPACING)
    is_there = (_look_up(nest, y, x) > 0) & (rng.random(y.shape) < 0.92)
    # a nucleus at the seed itself is what makes a patch positive, so it is always there
    nearest = np.hypot(y - seed_y[:, None], x - seed_x[:, None]).argmin(axis=1)
    at_seed = (np.flatnonzero(is_positive), nearest[is_positive])
    y[at_seed], x[at_seed], is_there[at_seed] = seed_y[is_positive], seed_x[is_positive], True
    stamp = grade[:, None] * STAMPS_PER_GRADE + rng.integers(0, STAMPS_PER_GRADE, y.shape)
    return _nuclei(y, x, stamp, is_there)


def _place_lymphocytes(
    rng: np.random.Generator, lymphoid: Floats, nest: Floats, gaps: Floats
) -> _Nuclei:
    y, x = _jittered_grid(rng, len(nest), _LYMPHOCYTE_SPACING)
    chance = 0.04 + 0.9 * soft_step(5 * _look_up(lymphoid, y, x))
    chance *= np.where(_look_up(nest, y, x) > -0.15, 0.06, 1)
    is_there = (rng.random(y.shape) < chance) & (_look_up(gaps, y, x) < 0.5)
    # pale ones keep together, in some patches more than in others
    paleness = _noise(rng, len(nest), 3) + rng.normal(-0.6, 1.0, (len(nest), 1, 1))
    is_pale = rng.random(y.shape) < soft_step(4 * _look_up(paleness, y, x))
    dark = rng.integers(0, NUM_LYMPHOCYTES, y.shape)
    pale = rng.integers(NUM_LYMPHOCYTES, NUM_LYMPHOCYTES + NUM_PALE, y.shape)
    return _nuclei(y, x, np.where(is_pale, pale, dark), is_there)


def _place_spindles(
    rng: np.random.Generator, lymphoid: Floats, nest: Floats, gaps: Floats, angle: Floats
) -> _Nuclei:
    y, x = _jittered_grid(rng, len(nest), _SPINDLE_SPACING)
    chance = 0.75 * soft_step(-4 * _look_up(lymphoid, y, x))
    chance *= (_look_up(nest, y, x) < -0.2) & (_look_up(gaps, y, x) < 0.3)
    turn = angle[:, None] + rng.normal(0, 0.25, y.shape)
    nearest_angle = np.rint(turn / np.pi * NUM_ANGLES).astype(np.int64) % NUM_ANGLES
    stamp = nearest_angle * STAMPS_PER_ANGLE + rng.integers(0, STAMPS_PER_ANGLE, y.shape)
    return _nuclei(y, x, stamp, rng.random(y.shape) < chance)


def _jittered_grid(rng: np.random.Generator, num: int, spacing: float) -> tuple[Floats, Floats]:
    """Return (y, x), each (num, M), of a turned, shifted, disturbed grid that covers a patch."""
    half = np.ceil(PATCH_SIZE * 0.8 / spacing)
    row, column = np.meshgrid(*[np.arange(-half, half + 1)] * 2, indexing="ij")
    column = column + 0.5 * (row % 2)  # rows of bricks, as round cells pack
    shape = (num, row.size)
    v = 0.9 * row.ravel() + rng.uniform(-0.3, 0.3, shape) + rng.random((num, 1))
    u = column.ravel() + rng.uniform(-0.3, 0.3, shape) + rng.random((num, 1))
    turn = rng.uniform(0, np.pi, (num, 1))
    y = _MIDDLE + spacing * (np.cos(turn) * v - np.sin(turn) * u)
    x = _MIDDLE + spacing * (np.sin(turn) * v + np.cos(turn) * u)
    return y.astype(np.float32), x.astype(np.float32)


def _nuclei(y: Floats, x: Floats, stamp: Ints, is_there: Bools) -> _Nuclei:
    """Return the nuclei that are there, without those too far outside to be seen."""
    is_seen = (np.minimum(y, x) > -_MARGIN) & (np.maximum(y, x) < PATCH_SIZE + _MARGIN)
    patch, site = np.nonzero(is_there & is_seen)
    pick = (patch, site)
    return _Nuclei(
        patch, np.rint(y[pick]).astype(np.int64), np.rint(x[pick]).astype(np.int64), stamp[pick]
    )


def _look_up(field: Floats, y: Floats, x: Floats) -> Floats:
    """Return the values (B, M) of a field (B, 96, 96) at sites, or at the edge nearest to them."""
    rows = np.clip(np.rint(y).astype(np.int64), 0, PATCH_SIZE - 1)
    columns = np.clip(np.rint(x).astype(np.int64), 0, PATCH_SIZE - 1)
    return field[np.arange(len(field))[:, None], rows, columns]


def _add_up(library: Floats, nuclei: _Nuclei, num: int) -> Floats:
    """Return (num, 96, 96): the stamps of all nuclei added up."""
    width = library.shape[1]
    margin = _MARGIN + width // 2 + 1  # the canvas takes stamps that reach over the edge
    side = PATCH_SIZE + 2 * margin
    corner_y, corner_x = nuclei.y - width // 2 + margin, nuclei.x - width // 2 + margin
    corner = (nuclei.patch * side + corner_y) * side + corner_x
    window = (np.arange(width)[:, None] * side + np.arange(width)).ravel()
    canvas = np.bincount(
        (corner[:, None] + window).ravel(),
        library[nuclei.stamp].ravel(),
        minlength=num * side * side,
    )
    inner = slice(margin, margin + PATCH_SIZE)
    return canvas.reshape(num, side, side)[:, inner, inner].astype(np.float32)


def _touches_centre(masks: Bools, nuclei: _Nuclei) -> Bools:
    """Return for each nucleus whether one of its pixels lies in the centre of its patch."""
    width = masks.shape[1]
    offsets = np.arange(width) - width // 2
    y, x = nuclei.y[:, None] + offsets, nuclei.x[:, None] + offsets  # (K, W)
    in_rows = (y >= CENTRE.start) & (y < CENTRE.stop)
    in_columns = (x >= CENTRE.start) & (x < CENTRE.stop)
    in_centre = in_rows[:, :, None] & in_columns[:, None, :]
    touches: Bools = (masks[nuclei.stamp] & in_centre).any(axis=(1, 2))
    return touches


def _stain(
    rng: np.random.Generator, haematoxylin: Floats, eosin: Floats, slides: Slides, slide: Ints
) -> npt.NDArray[np.uint8]:
    """Return grey levels (B, 96, 96, 3) by Beer and Lambert's law, with a camera's noise."""
    num = len(slide)
    amounts = np.stack([haematoxylin, eosin], axis=-1).reshape(num, -1, 2).clip(0)
    amounts *= rng.uniform(0.9, 1.1, (num, 1, 2)).astype(np.float32)
    density = amounts @ slides.stains[slide]  # (B, 96 * 96, 3)
    levels = slides.glass[slide][:, None, :] * np.exp(-density)
    levels += rng.standard_normal((num, PATCH_SIZE**2, 1), dtype=np.float32) * 2
    patches = np.rint(levels).clip(0, 255).astype(np.uint8)
    return patches.reshape(num, PATCH_SIZE, PATCH_SIZE, 3)


def _noise(rng: np.random.Generator, num: int, cells: int) -> Floats:
    """Return smooth fields (num, 96, 96) of mean 0 and deviation about 1, `cells` blobs across."""
    spread = _spreading(cells)
    grid = rng.standard_normal((num, spread.shape[1], spread.shape[1]), dtype=np.float32)
    fields: Floats = spread @ grid @ spread.T
    return fields


@cache
def _spreading(cells: int) -> Floats:
    """Return the matrix (96, cells + 4) that spreads one random number per cell over pixels."""
    position = (np.arange(PATCH_SIZE) + 0.5) * cells / PATCH_SIZE + 1.5
    weights = np.exp(-0.5 * ((position[:, None] - np.arange(cells + 4)) / 0.6) ** 2)
    unit: Floats = weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return unit.astype(np.float32)
