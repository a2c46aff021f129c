"""Packing: patches from anywhere into PCam's flat uint8 files, whole and verified or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import pandas as pd

from ml_core.data.layout import LABEL_KEY, Labels, load_labels, split_paths
from ml_core.data.packing.flat_file import create_flat, shorten_flat
from ml_core.data.packing.source import Damage, Part
from ml_core.data.packing.written_together import written_together
from ml_core.data.patch_file import Patches, PatchFile, Rows
from ml_core.durable import sync
from ml_core.errors import DataError
from ml_core.log import progress

# More than this and it is not damage but another kind of file: the wrong size, the wrong folder.
_MAX_SKIPPED_SHARE = 0.5
_NUM_REASONS_SHOWN = 5
_NUM_ROWS_SHOWN = 10

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PackedSplit:
    """A split that lies on the disk and was read back."""

    split: str
    num_patches: int
    num_positive: int
    num_skipped: int


@dataclass(frozen=True)
class _Files:
    """All files of a split. `x` and `y` are always written, the others where there is need."""

    x: Path
    y: Path
    meta: Path
    skipped: Path

    def all(self) -> tuple[Path, ...]:
        return self.x, self.y, self.meta, self.skipped


@dataclass(frozen=True)
class _Written:
    """What was meant to be written of x: sound rows and the digest of each run of them."""

    kept: Rows  # of the source
    digests: list[tuple[int, bytes]]  # (patches, SHA-256 of their bytes), in file order
    damage: Damage


def skipped_path(folder: str | Path, split: str) -> Path:
    """Return where the rows that were left out of `split` are listed: row, file, reason."""
    return split_paths(folder, split).x.with_name(
        f"camelyonpatch_level_2_split_{split}_skipped.csv"
    )


def write_parts(
    parts: Sequence[Part],
    out_dir: str | Path,
    *,
    tables: Mapping[str, pd.DataFrame] | None = None,
    skip_damaged: bool = False,
    force: bool = False,
    num_threads: int | None = None,
) -> list[PackedSplit]:
    """Write each part as one split of `out_dir`: x.h5, y.h5 and, where known, meta.csv.

    x is contiguous uint8 (N, H, W, 3), y uint8 (N, 1, 1, 1); rows keep the order of the part.
    `tables` are written beside them as csv, by file name. Everything is written under other names,
    read back from the disk and compared by SHA-256, and only then renamed: a kill leaves the old
    files, the new ones, or splits without y, which nobody takes for whole ones. Memory does not
    grow with the number of patches. Threads are as many as cores may be used unless said.

    Raises DataError for files that are there (unless `force`), for a disk without room, and for
    patches that cannot be packed: NaN, Inf, out of range, unreadable, another size. With
    `skip_damaged` these are left out and listed in `skipped_path` instead.
    """
    folder = Path(out_dir)
    splits = [_files(folder, part.split) for part in parts]
    table_of = {folder / name: table for name, table in (tables or {}).items()}
    paths = [*(path for files in splits for path in files.all()), *table_of]
    _check_not_there(paths, force)
    last = [*(files.y for files in splits), *table_of]
    num_threads = num_threads or _num_cores()
    try:
        with written_together(folder, paths, last) as asides:
            _check_room(folder, parts)
            packed = []
            for part, files in zip(parts, splits, strict=True):
                aside = _Files(*(asides[path] for path in files.all()))
                packed.append(_write_part(part, aside, skip_damaged, num_threads))
            for path, table in table_of.items():
                _write_csv(asides[path], table)
    except (OSError, RuntimeError) as error:  # h5py reports a full disk as either
        raise DataError(
            f"cannot write patches to {folder}: {error}. What was there is as it was; make room "
            "or choose another folder."
        ) from error
    return packed


def _files(folder: Path, split: str) -> _Files:
    paths = split_paths(folder, split)
    return _Files(paths.x, paths.y, paths.meta, skipped_path(folder, split))


def _check_not_there(finals: Iterable[Path], force: bool) -> None:
    there = [path for path in finals if path.exists()]
    if there and not force:
        raise DataError(
            f"{there[0]} is there already. Choose another folder, or overwrite with --force."
        )


def _check_room(folder: Path, parts: Sequence[Part]) -> None:
    num_patches = sum(len(part.rows) for part in parts)
    needed = sum(len(part.rows) * int(np.prod(part.source.shape[1:])) for part in parts) + 2**16
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder} has {free / 2**20:,.0f} MiB free; {num_patches:,} patches need "
            f"{needed / 2**20:,.0f} MiB. Make room, or choose another disk."
        )


def _write_part(part: Part, aside: _Files, skip_damaged: bool, num_threads: int) -> PackedSplit:
    written = _write_patches(part, aside.x, skip_damaged, num_threads)
    is_kept = np.isin(part.rows, written.kept)
    labels = part.labels[is_kept]
    with h5py.File(aside.y, "w", locking=False) as file:
        file.create_dataset(LABEL_KEY, data=labels.astype(np.uint8).reshape(-1, 1, 1, 1))
    if part.meta is not None:
        _write_csv(aside.meta, part.meta[is_kept])
    if written.damage:
        _write_csv(aside.skipped, _list_skipped(part, written.damage))
    _verify(part, aside, written, labels, num_threads)
    return PackedSplit(part.split, len(labels), int(labels.sum()), len(written.damage))


def _write_patches(part: Part, path: Path, skip_damaged: bool, num_threads: int) -> _Written:
    """Write the sound patches one after the other; raises DataError when there are others."""
    shape = part.source.shape[1:]
    offset = create_flat(path, (len(part.rows), *shape))
    digests: list[tuple[int, bytes]] = []
    damage: dict[int, str] = {}

    def read(rows: Rows) -> tuple[Patches, Damage, bytes]:
        patches, wrong = part.source.read(rows)
        patches = np.ascontiguousarray(patches)
        return patches, wrong, hashlib.sha256(patches.data).digest()

    blocks = part.source.blocks(part.rows)
    with open(path, "r+b") as file:
        file.seek(offset)
        found = _in_order(read, blocks, num_threads)
        for patches, wrong, digest in progress(
            found, total=len(blocks), description=part.split, unit="blocks"
        ):
            damage |= wrong
            if damage and not skip_damaged:
                continue  # read on only to tell all that is wrong at once
            file.write(patches.data)
            digests.append((len(patches), digest))
    _check_damage(part, damage, skip_damaged)
    kept = np.setdiff1d(part.rows, list(damage))
    if damage:
        shorten_flat(path, (len(kept), *shape), offset)
    return _Written(kept, digests, damage)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], num_threads: int
) -> Iterator[Result]:
    """Yield `function` of each item in turn; threads work at most `num_threads` + 1 ahead."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _check_damage(part: Part, damage: Damage, skip_damaged: bool) -> None:
    if not damage:
        return
    share = len(damage) / len(part.rows)
    if skip_damaged and share <= _MAX_SKIPPED_SHARE:
        return
    seen = _describe(part, damage)
    if skip_damaged:
        seen += (
            f" --skip-damaged leaves out {_MAX_SKIPPED_SHARE:.0%} at most: so many are no damage. "
            "Look at the first of them."
        )
    else:
        seen += (
            " Mend them, take them out of the source, or leave them out with --skip-damaged, "
            "which lists them in a csv."
        )
    raise DataError(seen)


def _describe(part: Part, damage: Damage) -> str:
    """Return one sentence: how many patches, and the rows of each reason."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row in sorted(damage):
        rows_of[damage[row]].append(row)
    reasons = sorted(rows_of, key=lambda reason: -len(rows_of[reason]))
    told = []
    for reason in reasons[:_NUM_REASONS_SHOWN]:
        rows = rows_of[reason]
        first = ", ".join(part.source.name_of(row) for row in rows[:_NUM_ROWS_SHOWN])
        more = f" and {len(rows) - _NUM_ROWS_SHOWN:,} more" if len(rows) > _NUM_ROWS_SHOWN else ""
        told.append(f"{reason} ({len(rows):,}: rows {first}{more})")
    if len(reasons) > _NUM_REASONS_SHOWN:
        told.append(f"and {len(reasons) - _NUM_REASONS_SHOWN:,} other reasons")
    return (
        f"{part.source.name}: {len(damage):,} of {len(part.rows):,} patches cannot be packed. "
        f"What is wrong: {'; '.join(told)}."
    )


def _list_skipped(part: Part, damage: Damage) -> pd.DataFrame:
    rows = sorted(damage)
    files = [part.source.file_of(row) for row in rows]
    return pd.DataFrame({"row": rows, "file": files, "reason": [damage[row] for row in rows]})


def _verify(part: Part, aside: _Files, written: _Written, labels: Labels, num_threads: int) -> None:
    """Raise DataError unless a reader finds on the disk what was meant to be written."""
    sync(aside.x)  # what is only in memory would be read from there
    _forget_cached(aside.x)
    file = PatchFile(aside.x)
    assert file.is_flat and file.is_bytes
    ends = np.cumsum([num for num, _ in written.digests])
    stretches = [
        (np.arange(end - num, end), digest)
        for (num, digest), end in zip(written.digests, ends, strict=True)
    ]

    def is_same(stretch: tuple[Rows, bytes]) -> bool:
        rows, digest = stretch
        return hashlib.sha256(file.read(rows).data).digest() == digest

    same = progress(
        _in_order(is_same, stretches, num_threads),
        total=len(stretches),
        description=f"{part.split}, read back",
        unit="blocks",
    )
    wrong = [int(rows[0]) for (rows, _), ok in zip(stretches, same, strict=True) if not ok]
    file.close()
    if wrong or len(file) != len(labels) or not np.array_equal(load_labels(aside.y), labels):
        what = f"patches from row {wrong[0]} on" if wrong else "labels"
        raise DataError(
            f"{aside.x.parent}: {part.split}: {what} read back differently from what was written. "
            "The disk or the memory is at fault; nothing was kept."
        )


def _forget_cached(path: Path) -> None:
    """Ask the system to read `path` from the disk next time; a hint where that is not possible."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _num_cores() -> int:
    """Return the cores this process may use; on a cluster fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, lineterminator="\n")
