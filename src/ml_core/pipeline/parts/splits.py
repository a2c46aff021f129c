"""The data sets and loaders of a config, built the same way by every stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ml_core.config import Config
from ml_core.data.checks import SplitRecord, check_splits, hash_file
from ml_core.data.exclusions import load_exclusions
from ml_core.data.held_patches import check_room
from ml_core.data.layout import split_paths
from ml_core.data.loader import EpochBatches, PatchLoader, build_loader, loader_of
from ml_core.data.patch_file import Rows
from ml_core.data.pcam import PCAMDataset
from ml_core.data.versions.digests import FileDigest
from ml_core.data.versions.recorded import describe_recorded_rows
from ml_core.distributed import ALONE, Ranks
from ml_core.errors import ConfigError, RunError
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.local_copy import check_copy, say_where_read
from ml_core.runs import RunDir, RunRecord, read_json

logger = logging.getLogger("ml_core.data")

# One number for validation and evaluation: a batch of another size can change the last bits of a
# logit, and then a score recomputed from a checkpoint would not equal the logged one.
INFERENCE_BATCH_SIZE = 256


def run_exclusions(run: RunDir, record: RunRecord) -> Mapping[str, Rows]:
    """Return which rows of each split a run leaves out: those of its own list, if it has one.

    Raises RunError when the list is not the one that the run began with.
    """
    expected = record.audit.get("exclusions_sha256")
    path = run.exclusions_path
    found = hash_file(path) if path.is_file() else None
    if found != expected:
        state = "is missing" if found is None else "has changed"
        raise RunError(
            f"{path} {state} since the run was trained, so other patches would be used. Put it "
            "back as it was, or start a new run."
        )
    return load_exclusions(path) if expected else {}


def check_data(
    config: Config,
    splits: Sequence[str],
    exclude: Mapping[str, Rows],
    hashes: Mapping[str, tuple[str, str]] | None = None,
) -> list[SplitRecord]:
    """Check the files of `splits` and say in a line each what they hold; raises DataError.

    `exclude`: rows to leave out of each split; `hashes`: see `check_splits`.
    """
    say_where_read(config.data)
    check_copy(config.data, splits)
    records = check_splits(
        config.data.files_dir,
        splits,
        patch_size=config.data.input_shape[1:],
        filter_data=config.data.filter_data,
        max_patches=config.data.max_patches,
        exclude=exclude,
        hashes=hashes,
    )
    for record in records:
        logger.info("%s", describe(record))
    return records


def recorded(config: Config, check: SplitRecord) -> dict[str, Any]:
    """Return what a record keeps of `check`: its files in data_path, which outlive a local copy."""
    paths = split_paths(config.data.data_path, check.split)
    return {**check.to_dict(), "x_path": str(paths.x), "y_path": str(paths.y)}


def refuse_other_data(
    record: RunRecord,
    checks: Sequence[SplitRecord],
    changed: Mapping[tuple[str, str], str] | None = None,
) -> None:
    """Raise RunError when a split's bytes are not those the run was trained on.

    `changed` says which rows are others, where it is known: see `changed_rows`.
    """
    for check in checks:
        then = record.data[check.split]
        for key, path in (("x", check.x_path), ("y", check.y_path)):
            old, new = then[f"{key}_sha256"], getattr(check, f"{key}_sha256")
            if old != new:
                rows = (changed or {}).get((check.split, key), "")
                raise RunError(
                    f"{path} has changed since the run was trained: its SHA-256 was "
                    f"{old[:12]} and is {new[:12]}{f'; {rows} differ' if rows else ''}. Put the "
                    "old file back, or start a new run."
                )


def changed_rows(
    run: RunDir, digests: Mapping[str, tuple[FileDigest, FileDigest]]
) -> dict[tuple[str, str], str]:
    """Return in words which rows of (split, x or y) are not what `run` has recorded of them.

    Of files that did not lie flat, and of runs older than these records, nothing is known.
    """
    if not run.data_digests_path.is_file():
        return {}
    files = read_json(run.data_digests_path).get("files", {})
    return {
        (split, key): describe_recorded_rows(files.get(f"{split}_{key}", {}), found, key)
        for split, pair in digests.items()
        for key, found in zip(("x", "y"), pair, strict=True)
    }


def describe(record: SplitRecord) -> str:
    """Return one line about a split: counts, what was left out, storage, identity."""
    left_out = record.num_rows - record.num_patches
    notes = []
    if left_out:
        notes.append(f"{left_out:,} of {record.num_rows:,} in the file are NOT used")
    if record.num_excluded:
        notes.append(f"{record.num_excluded:,} left out as the audit says")
    if record.num_filtered:
        notes.append(f"{record.num_filtered:,} dropped by filter_data")
    return (
        f"{record.split:5}  {record.num_patches:,} patches, {record.num_positive:,} tumour"
        f"{''.join(f', {note}' for note in notes)}; {record.dtype} {record.layout}, "
        f"sha256 {record.x_sha256[:12]}"
    )


def open_split(config: Config, split: str, exclude: Mapping[str, Rows]) -> PCAMDataset:
    """Return the data set of `split` as `config` and the rows to leave out restrict it."""
    paths = split_paths(config.data.files_dir, split)
    return PCAMDataset(
        paths.x,
        paths.y,
        filter_data=config.data.filter_data,
        subset=config.data.max_patches,
        exclude=exclude.get(split),
    )


def check_placement(config: Config, checks: Sequence[SplitRecord]) -> None:
    """Raise ConfigError where the patches of `checks` cannot be where data.placement has them.

    Said before anything is made of a training, and by arithmetic: see `check_room`.
    """
    if config.data.placement == "file":
        return
    _, height, width = config.data.input_shape
    check_room(
        num_patches=sum(check.num_patches for check in checks),
        patch_shape=(height, width, 3),
        device=_place(config, choose_device(config.training.device)),
        what=" and ".join(check.split for check in checks),
    )


def _place(config: Config, device: torch.device) -> torch.device:
    """Return where the patches are kept for a training on `device`."""
    if config.data.placement == "ram":
        return torch.device("cpu")
    if device.type == "cpu":
        raise ConfigError(
            "data.placement is gpu, but the training computes on a CPU: training.device is "
            f"{config.training.device}. Set data.placement to ram, or run where there is a GPU."
        )
    return device


def train_order(config: Config, dataset: PCAMDataset, ranks: Ranks = ALONE) -> EpochBatches:
    """Return which patches `train_loader` has in which batch; nothing is read."""
    return EpochBatches(
        dataset.labels,
        config.data.batch_size,
        shuffle=True,
        balanced=config.data.balanced,
        seed=config.seed,
        micro_batch=None if config.training.numerics == "fast" else config.training.micro_batch,
        ranks=ranks,
    )


def train_loader(
    config: Config, dataset: PCAMDataset, device: torch.device, ranks: Ranks = ALONE
) -> PatchLoader:
    """Return shuffled batches for training, drawn by `config.seed`: the part of each for a rank.

    The patches are read first, all of them, where data.placement wants them kept.
    """
    _keep(config, dataset, device)
    order = train_order(config, dataset, ranks)
    return loader_of(dataset, order, num_workers=config.data.num_workers, device=device)


def inference_loader(
    config: Config,
    dataset: PCAMDataset,
    device: torch.device,
    ranks: Ranks = ALONE,
    *,
    again: bool = False,
) -> PatchLoader:
    """Return batches in file order, each patch once and on one rank.

    They are read from the file, unless they will be asked for `again` and again: then they are kept
    where data.placement says.
    """
    if again:
        _keep(config, dataset, device)
    return build_loader(
        dataset,
        INFERENCE_BATCH_SIZE,
        shuffle=False,
        num_workers=config.data.num_workers,
        device=device,
        share="batches",
        ranks=ranks,
    )


def _keep(config: Config, dataset: PCAMDataset, device: torch.device) -> None:
    if config.data.placement != "file" and dataset.held_on is None:
        dataset.hold(_place(config, device))
