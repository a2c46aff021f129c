"""What must be the same on every rank, since they compute one result: code, data, machine.

Where nodes have disks of their own, one may hold an older copy of any of it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import torch

from ml_core.config import Config
from ml_core.data.checks import hash_splits
from ml_core.data.layout import split_paths
from ml_core.distributed import Ranks
from ml_core.errors import RunError
from ml_core.pipeline.parts.device import choose_device
from ml_core.reproducibility import numerics_record
from ml_core.reproducibility.code import PACKAGE, source_digest
from ml_core.reproducibility.same_numerics import what_differs
from ml_core.runs import RunRecord

SPLITS = ("train", "valid")
Hashes = Mapping[str, tuple[str, str]]  # SHA-256 of each split's patches and labels


def facts_here(config: Config) -> dict[str, Any]:
    """Return {"code", "numerics"} of this process, whose threads are set, as JSON takes it."""
    training = config.training
    device = str(choose_device(training.device))
    numerics = numerics_record(training.numerics, torch.get_num_threads(), device)
    return {"code": source_digest(), "numerics": numerics}


def hash_data_of_node(config: Config, ranks: Ranks) -> Hashes:
    """Return the hashes of the data that this rank's machine reads; rank 0 hashes its own itself.

    One rank of a machine reads them for all there; the others get nothing. Raises DataError.
    """
    if ranks.is_first or ranks.local_rank > 0:
        return {}
    return hash_splits(config.data.files_dir, SPLITS)


def refuse_another_than_first(
    facts_of_first: Mapping[str, Any], config: Config, record: RunRecord, hashes: Hashes, rank: int
) -> None:
    """Raise RunError where this rank has not the code, numerics or data that rank 0 has.

    `record` is that of the run, with the hashes that rank 0 found; `hashes` are this machine's.
    """
    where, here = f"rank {rank} on {socket.gethostname()}", facts_here(config)
    if here["code"] != facts_of_first["code"]:
        raise RunError(
            f"{where} has other code than rank 0: the SHA-256 of {PACKAGE} is "
            f"{here['code'][:12]} and there {facts_of_first['code'][:12]}. Start all ranks from "
            "one environment, on a disk that all machines share."
        )
    level = config.training.numerics
    for name, first, own in what_differs(facts_of_first["numerics"], here["numerics"], level):
        raise RunError(
            f"{where}: {name} is {own}, and {first} at rank 0, so the weights would depend on who "
            "computes what. Ask for machines of one type (`constraint` of the profile), or set "
            "training.numerics to portable."
        )
    for split, pair in hashes.items():
        paths = split_paths(config.data.files_dir, split)
        for key, path, found in zip(("x", "y"), (paths.x, paths.y), pair, strict=True):
            if found != (then := record.data[split][f"{key}_sha256"]):
                raise RunError(
                    f"{where} reads other data than rank 0: the SHA-256 of {path} is {found[:12]} "
                    f"and there {then[:12]}. Copy it anew: ml-core data stage."
                )
