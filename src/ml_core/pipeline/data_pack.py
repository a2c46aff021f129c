"""Pack patches into PCam's flat uint8 files, which training maps instead of decoding.

Reads a folder of PNG, JPEG or TIFF patches with a csv, one HDF5 file, or a folder of PCam files.
Writes per split x.h5, y.h5, meta.csv (where slides or places are known) and, with --skip-damaged,
skipped.csv (row, file, reason), all named as PCam does.

    ml-core data pack data/images data/packed --labels data/images/labels.csv
    ml-core data pack data/pcam data/flat
    ml-core data pack patches.h5 data/flat --key images --label-key labels --split train
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_core.data.layout import LABEL_KEY, PATCH_KEY, SPLITS, split_paths
from ml_core.data.packing.pack import PackedSplit, write_parts
from ml_core.data.packing.parts import part_of_hdf5, parts_of_images, parts_of_pcam, splits_in
from ml_core.data.packing.source import Part
from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")


def data_pack(
    source: Path,
    out_dir: Path,
    *,
    split: str | None = None,
    labels: Path | None = None,
    meta: Path | None = None,
    key: str = PATCH_KEY,
    label_key: str = LABEL_KEY,
    size: int | None = None,
    skip_damaged: bool = False,
    force: bool = False,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Return {"data_path", "splits": {split: {"patches", "positive", "skipped"}}}.

    `labels` is the csv of a folder of images or the label file of an HDF5 file. `size` is the
    height and width of the images [that of the first]. Raises DataError for a source that cannot
    be read or packed and an `out_dir` that cannot be written; nothing is left behind then.
    """
    parts = _find_parts(source, split, labels, meta, key, label_key, size)
    _refuse_own_source(source, out_dir, parts)
    packed = write_parts(
        parts,
        out_dir,
        skip_damaged=skip_damaged,
        force=force,
        num_threads=num_threads,
    )
    for each in packed:
        logger.info("%s", _describe(each, out_dir))
    return {
        "data_path": str(out_dir),
        "splits": {
            each.split: {
                "patches": each.num_patches,
                "positive": each.num_positive,
                "skipped": each.num_skipped,
            }
            for each in packed
        },
    }


def _find_parts(
    source: Path,
    split: str | None,
    labels: Path | None,
    meta: Path | None,
    key: str,
    label_key: str,
    size: int | None,
) -> list[Part]:
    if not source.exists():
        raise DataError(f"there is no file or folder {source}.")
    if source.is_file():
        _refuse_options(source, "one HDF5 file", {"--size": size})
        part = part_of_hdf5(
            source,
            split or SPLITS[0],
            labels_path=labels,
            meta_path=meta,
            key=key,
            label_key=label_key,
        )
        return [part]
    if splits_in(source) and labels is None:
        options = {"--split": split, "--meta": meta, "--size": size}
        _refuse_options(source, "a folder of PCam files, packed whole", options)
        return parts_of_pcam(source)
    _refuse_options(source, "a folder of images, whose csv says it all", {"--meta": meta})
    return parts_of_images(source, labels, split, None if size is None else (size, size))


def _refuse_options(source: Path, what: str, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise DataError(f"{source} is {what}: leave out {', '.join(given)}.")


def _refuse_own_source(source: Path, out_dir: Path, parts: list[Part]) -> None:
    """Raise DataError where a file would be replaced by its own packed copy."""
    folder = source if source.is_dir() else source.parent
    finals = {split_paths(out_dir, part.split).x for part in parts}
    is_own = splits_in(folder) and out_dir.exists() and out_dir.samefile(folder)
    if is_own or (source.is_file() and any(f.exists() and f.samefile(source) for f in finals)):
        raise DataError(
            f"{out_dir} is where the source lies. Choose another folder: what is packed can "
            "leave patches out, and the source is then the only copy of them."
        )


def _describe(packed: PackedSplit, out_dir: Path) -> str:
    skipped = f", {packed.num_skipped:,} damaged ones left out" if packed.num_skipped else ""
    return (
        f"{packed.split:5}  {packed.num_patches:,} patches, {packed.num_positive:,} tumour"
        f"{skipped} -> {out_dir}, read back and found equal"
    )
