"""Where the strangest small spot of a patch is, for five kinds of strange, from grey levels alone.

Optics blur, stain is never even and tissue has no ruler; paint has one colour, sharp edges and
straight sides. All kinds are made of the steps between neighbouring pixels, largest channel first:

    flat    a 3x3 window of one colour with a sharp corner: a block, a bar or a frame of any size
    pair    a 2x2 window of one colour whose four sides are sharp
    blend   a square of 3 to 5 pixels whose sides are all sharper than anything inside it: a block
            that lets the tissue shine through, or was compressed after it was pasted
    weave   neighbours that all differ: a checkerboard
    line    a row or a column, 1 to 4 pixels wide, sharper across than along

Every map is kept as one flat run of bytes with a row and a column to spare, in which a shift is an
offset: shifting by slices takes four times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.audit.measures.block import Block

# Steps within "one colour", in levels. So even, 23,000 real patches hold no 3x3 window with a
# corner sharper than 13 levels; compressed without loss, 87 more hold none sharper than 11.
FLAT_SPREAD = 2
BLEND_SIZES = (3, 4, 5)
# Round nuclei of 3 pixels are the one natural thing that comes near a square: 99 % of real patches
# stay below 21 at that size, and below 1 at 4 pixels and more.
_NUCLEUS = 20
LINE_WIDTHS = (1, 2, 3, 4)
# How much of its changes along itself is taken off a line: a fibre changes as much as it stands out
_ALONG = 2.0

_PART = 12  # patches at a time: three maps of them fit the second-level cache

Map = npt.NDArray[np.uint8]  # (n, H + 1, W + 1)
Columns = dict[str, npt.NDArray[Any]]


def measure_trigger(block: Block) -> Columns:
    """Return for each kind of spot, per patch (n,), the strangest one's strength and place.

    `trigger_<kind>`: int16, grey levels 0..255, the smallest step that the spot's sides make to
    what is around (for "weave": within itself, for "line": the mean step, which may be negative);
    `trigger_<kind>_row` and `_col`: its first pixel, int16, -1 in the direction that a line runs;
    `trigger_<kind>_colour`: the pixel there as 0xRRGGBB, int32, of a line the one in its middle;
    `trigger_blend_size` and `trigger_line_width`: pixels, int16. Outside the patch counts as sharp
    for "pair", "blend" and "line", since corners and edges are where triggers are put.
    """
    parts = [
        _measure_part(block.levels[start : start + _PART]) for start in range(0, len(block), _PART)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _measure_part(levels: npt.NDArray[np.uint8]) -> Columns:
    dx, dy = _steps(levels)
    _pad(dx, dy, 0)
    inner = _in_pairs(np.maximum, dx, dy)
    columns = _strongest("weave", _weave_map(dx, dy), levels)
    columns |= _strongest("flat", _flat_map(dx, dy, inner), levels)
    columns |= _line_columns(dx, dy, levels)
    _pad(dx, dy, 255)
    return columns | _square_columns(dx, dy, inner, levels)


def _steps(levels: npt.NDArray[np.uint8]) -> tuple[Map, Map]:
    """Return |step| to the pixel on the left and above, the largest of the channels."""
    n, height, width, _ = levels.shape
    plane = np.zeros((n, height + 1, width + 1), np.uint8)
    dx, dy = np.zeros_like(plane), np.zeros_like(plane)
    for channel in range(3):
        plane[:, :height, :width] = levels[..., channel]
        for steps, shift in ((dx, 1), (dy, width + 1)):
            here, before, out = plane.ravel()[shift:], plane.ravel()[:-shift], steps.ravel()[shift:]
            step = np.maximum(here, before)
            step -= np.minimum(here, before)
            np.maximum(out, step, out=out)
    return dx, dy


def _pad(dx: Map, dy: Map, outside: int) -> None:
    """Set the steps out of the patch, in place, and those that there are not to 0."""
    dx[:, :, 0] = dx[:, :, -1] = outside
    dy[:, 0] = dy[:, -1] = outside
    dx[:, -1] = 0
    dy[:, :, -1] = 0


def _shifted(op: np.ufunc, a: Map, b: Map, rows: int, cols: int) -> Map:
    """Return op(a, b from `rows` further down and `cols` further right), 0 at the very end."""
    shift = rows * a.shape[2] + cols
    out = np.empty_like(a)
    op(a.ravel()[:-shift], b.ravel()[shift:], out=out.ravel()[:-shift])
    out.ravel()[-shift:] = 0
    return out


def _in_pairs(op: np.ufunc, dx: Map, dy: Map) -> Map:
    """Return `op` over the four steps inside the 2x2 window that starts at each pixel."""
    across = _shifted(op, dx, dx, 1, 0)
    down = _shifted(op, dy, dy, 0, 1)
    inside = np.zeros_like(dx)
    row = dx.shape[2]
    op(across.ravel()[1 : 1 - row], down.ravel()[row:], out=inside.ravel()[:-row])
    return inside


def _grown(op: np.ufunc, window: Map) -> Map:
    """Return `op` over windows one pixel larger both ways."""
    wider = _shifted(op, window, window, 0, 1)
    return _shifted(op, wider, wider, 1, 0)


def _weave_map(dx: Map, dy: Map) -> Map:
    """Return how much all neighbours differ: within 3x3 pixels, half of it within 2x2.

    Of 23,000 real patches none has 3x3 pixels that all differ by more than 123.
    """
    two = _in_pairs(np.minimum, dx, dy)
    weave: Map = np.maximum(_grown(np.minimum, two), two >> 1)
    return weave


def _flat_map(dx: Map, dy: Map, inner: Map) -> Map:
    """Return how sharp the sharpest corner of each even 3x3 window is; 0 where it is not even."""
    beside = _shifted(np.minimum, dx, dx, 1, 0)
    beside = _shifted(np.minimum, beside, dx, 2, 0)
    above = _shifted(np.minimum, dy, dy, 0, 1)
    above = _shifted(np.minimum, above, dy, 0, 2)
    sides = _shifted(np.maximum, beside, beside, 0, 3)
    corner = np.minimum(sides, _shifted(np.maximum, above, above, 3, 0))
    return _where_even(corner, _grown(np.maximum, inner))


def _where_even(strength: Map, inner: Map) -> Map:
    # bool as uint8: NumPy would convert it first, which takes longer than multiplying
    even: Map = strength * (inner <= FLAT_SPREAD).view(np.uint8)
    return even


def _square_columns(dx: Map, dy: Map, inner: Map, levels: npt.NDArray[np.uint8]) -> Columns:
    """Return the columns of "pair" and "blend", for which the sides grow pixel by pixel."""
    beside, above = dx, dy
    blends: list[Columns] = []
    for size in range(2, max(BLEND_SIZES) + 1):
        beside = _shifted(np.minimum, beside, dx, size - 1, 0)
        above = _shifted(np.minimum, above, dy, 0, size - 1)
        sides = _shifted(np.minimum, beside, beside, 0, size)
        np.minimum(sides, _shifted(np.minimum, above, above, size, 0), out=sides)
        if size == 2:
            columns = _strongest("pair", _where_even(sides, inner), levels)
            continue
        inner = _grown(np.maximum, inner)
        np.maximum(sides, inner, out=sides)
        sides -= inner
        if size == 3:
            sides = np.maximum(sides, _NUCLEUS) - np.uint8(_NUCLEUS)
        blend = _strongest("blend", sides, levels)
        blends.append(blend | {"trigger_blend_size": np.full(len(levels), size, np.int16)})
    best = np.argmax([blend["trigger_blend"] for blend in blends], axis=0)
    for name in blends[0]:
        columns[name] = np.choose(best, [blend[name] for blend in blends])
    return columns


def _strongest(kind: str, strength: Map, levels: npt.NDArray[np.uint8]) -> Columns:
    """Return the columns of `kind`: the largest value of each patch's map, and where it is."""
    n, height, width, _ = levels.shape
    flat = strength.reshape(n, -1)
    place = flat.argmax(axis=1)
    row, col = np.divmod(place, width + 1)
    name = f"trigger_{kind}"
    return {
        name: flat[np.arange(n), place].astype(np.int16),
        f"{name}_row": row.astype(np.int16),
        f"{name}_col": col.astype(np.int16),
        f"{name}_colour": _packed(levels, np.minimum(row, height - 1), np.minimum(col, width - 1)),
    }


def _packed(
    levels: npt.NDArray[np.uint8], row: npt.NDArray[Any], col: npt.NDArray[Any]
) -> npt.NDArray[np.int32]:
    """Return one pixel per patch as 0xRRGGBB."""
    pixel = levels[np.arange(len(levels)), row, col].astype(np.int32)
    packed: npt.NDArray[np.int32] = pixel[:, 0] << 16 | pixel[:, 1] << 8 | pixel[:, 2]
    return packed


def _line_columns(dx: Map, dy: Map, levels: npt.NDArray[np.uint8]) -> Columns:
    """Return the columns of "line", the stronger of the best row and the best column."""
    _, height, width, _ = levels.shape
    row_dx, col_dx = _means(dx, height, width - 1)
    row_dy, col_dy = _means(dy, height - 1, width)
    in_rows = _best_line(row_dy[:, 1:height], row_dx[:, :height])
    in_cols = _best_line(col_dx[:, 1:width], col_dy[:, :width])
    is_col = in_cols[0] > in_rows[0]
    strength, first, thick = (np.where(is_col, c, r) for c, r in zip(in_cols, in_rows, strict=True))
    row, col = np.where(is_col, -1, first), np.where(is_col, first, -1)
    middle_row = np.where(is_col, height // 2, row)
    return {
        "trigger_line": strength.astype(np.int16),
        "trigger_line_row": row.astype(np.int16),
        "trigger_line_col": col.astype(np.int16),
        "trigger_line_colour": _packed(levels, middle_row, np.where(is_col, col, width // 2)),
        "trigger_line_width": thick.astype(np.int16),
    }


def _means(
    steps: Map, num_rows: int, num_cols: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the mean step of each row and of each column, given how many steps they hold."""
    real = steps.astype(np.float32)  # sums by BLAS: NumPy's own of bytes take eight times as long
    _, height, width = real.shape
    in_row = real @ np.full(width, 1 / num_cols, np.float32)
    in_col = np.full(height, 1 / num_rows, np.float32) @ real
    return in_row, in_col


def _best_line(
    across: npt.NDArray[np.float32], along: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return strength, first row and width of each patch's best line of rows.

    `across` (n, H - 1): mean step between a row and the next; `along` (n, H): within the row.
    """
    n, height = along.shape
    outside = np.full((n, 1), 255, np.float32)
    sides = np.concatenate([outside, across, outside], axis=1)  # (n, H + 1)
    inside = along
    found = []
    for thick in LINE_WIDTHS:
        num = height + 1 - thick
        if thick > 1:
            inside = np.maximum(inside[:, :num], along[:, thick - 1 :])
            inside = np.maximum(inside, sides[:, thick - 1 : thick - 1 + num])
        strength = np.minimum(sides[:, :num], sides[:, thick : thick + num]) - _ALONG * inside
        first = strength.argmax(axis=1)
        found.append((strength[np.arange(n), first], first))
    best = np.argmax([strength for strength, _ in found], axis=0)
    strength = np.choose(best, [strength for strength, _ in found])
    return strength, np.choose(best, [first for _, first in found]), np.array(LINE_WIDTHS)[best]
