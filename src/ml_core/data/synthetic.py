"""A data set of drawn tissue in PCam's file layout, for trying everything without real patches."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ml_core.data.layout import LABEL_KEY, SPLITS, SplitPaths, split_paths
from ml_core.data.nuclei import Bools
from ml_core.data.packing.flat_file import create_flat
from ml_core.data.tissue import PATCH_SIZE, Ints, Tissue, draw_slides
from ml_core.durable import sync
from ml_core.errors import DataError
from ml_core.reproducibility import Stream, derive_seed

_PATCHES_PER_SLIDE = 50
_MIN_SLIDES = 4
_BLOCK = 128  # patches drawn at once: about 100 MiB
_SHAPE = (PATCH_SIZE, PATCH_SIZE, 3)


@dataclass(frozen=True)
class _Aside:
    """The files of a split while they are written: nobody takes them for finished ones."""

    final: SplitPaths
    x: Path
    y: Path
    meta: Path


def write_synthetic(
    out_dir: str | Path,
    num_train: int = 4000,
    num_valid: int = 1000,
    num_test: int = 1000,
    seed: int = 42,
    *,
    force: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> list[SplitPaths]:
    """Write train, valid and test to `out_dir` as x.h5, y.h5 and meta.csv; return their paths.

    Half of each split is positive: tumour nuclei touch the centre 32 x 32. Slides differ in stain
    and brightness and belong to one split each. The same arguments give the same patches. Files
    appear under their names only once all are complete. `on_progress` is told how many patches
    are done. Raises DataError when files are there already (unless `force`), when the folder
    cannot be written, or when the disk has no room.
    """
    folder = Path(out_dir)
    counts = dict(zip(SPLITS, (num_train, num_valid, num_test), strict=True))
    for split, num in counts.items():
        if num < 2:
            raise DataError(f"{num} synthetic {split} patches: at least 2, one of each class.")
    asides = [_aside(split_paths(folder, split)) for split in SPLITS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_not_there(asides, force)
        _check_room(folder, sum(counts.values()))
        try:
            _write_all(asides, list(counts.values()), seed, on_progress or (lambda _: None))
            for path, final in _pairs(asides):
                os.replace(path, final)
            sync(folder)
        finally:
            for path, _ in _pairs(asides):
                path.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # h5py reports a full disk as either
        raise DataError(f"cannot write synthetic patches to {folder}: {error}.") from error
    return [aside.final for aside in asides]


def _aside(final: SplitPaths) -> _Aside:
    x, y, meta = (
        path.with_name(f".{path.name}.{os.getpid()}.part")
        for path in (final.x, final.y, final.meta)
    )
    return _Aside(final, x, y, meta)


def _pairs(asides: list[_Aside]) -> list[tuple[Path, Path]]:
    """Return (aside, final) paths of all files."""
    return [
        pair
        for aside in asides
        for pair in (
            (aside.x, aside.final.x),
            (aside.y, aside.final.y),
            (aside.meta, aside.final.meta),
        )
    ]


def _check_not_there(asides: list[_Aside], force: bool) -> None:
    there = [final for _, final in _pairs(asides) if final.exists()]
    if there and not force:
        raise DataError(
            f"{there[0]} is there already. Choose another folder, or overwrite with --force."
        )


def _check_room(folder: Path, num_patches: int) -> None:
    needed = num_patches * int(np.prod(_SHAPE)) + 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder} has {free / 2**20:,.0f} MiB free; {num_patches:,} patches need "
            f"{needed / 2**20:,.0f} MiB. Make room, or write fewer."
        )


def _write_all(
    asides: list[_Aside], counts: list[int], seed: int, on_progress: Callable[[int], None]
) -> None:
    tissue = Tissue(_generator(seed, 0, 0))
    num_done, first_slide = 0, 0
    for number, (aside, num) in enumerate(zip(asides, counts, strict=True), start=1):
        rng = _generator(seed, number, 0)
        num_slides = max(_MIN_SLIDES, num // _PATCHES_PER_SLIDE)
        slides = draw_slides(rng, num_slides)
        slide = rng.permutation(np.arange(num) % num_slides)
        labels = rng.permutation(np.arange(num) % 2).astype(np.uint8)
        place = rng.permutation(num)
        has_tumour = np.empty(num, np.bool_)
        offset = create_flat(aside.x, (num, *_SHAPE))
        with open(aside.x, "r+b") as file:
            file.seek(offset)
            for start in range(0, num, _BLOCK):
                block = slice(start, start + _BLOCK)
                block_rng = _generator(seed, number, 1 + start // _BLOCK)
                patches, nuclei = tissue.draw(block_rng, slides, slide[block], labels[block] == 1)
                file.write(patches.tobytes())
                has_tumour[block] = nuclei.any(axis=(1, 2))
                on_progress(num_done + start + len(patches))
        _write_labels(aside.y, labels)
        _write_meta(aside.meta, place, has_tumour, labels, first_slide + slide)
        for path in (aside.x, aside.y, aside.meta):
            sync(path)
        num_done += num
        first_slide += num_slides


def _write_labels(path: Path, labels: npt.NDArray[np.uint8]) -> None:
    with h5py.File(path, "w", locking=False) as file:
        file.create_dataset(LABEL_KEY, data=labels.reshape(-1, 1, 1, 1))


def _write_meta(
    path: Path, place: Ints, has_tumour: Bools, labels: npt.NDArray[np.uint8], slide: Ints
) -> None:
    """Write a row per patch, with PCam's columns; coordinates are those of the slide's pixels."""
    per_row, step = 256, 4 * PATCH_SIZE
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"])
        for row, label in enumerate(labels):
            coord_y, coord_x = step * (place[row] // per_row), step * (place[row] % per_row)
            wsi = f"synthetic_{slide[row]:03d}"
            writer.writerow([coord_y, coord_x, bool(has_tumour[row]), bool(label), wsi])


def _generator(seed: int, *position: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(derive_seed(seed, Stream.SYNTHETIC, *position)))
