"""The files of one checkpoint: how they are written, and verified before they are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from ml_core.checkpoint.optimizer_state import flatten_optimizer, on_cpu, unflatten_optimizer
from ml_core.errors import CheckpointError
from ml_core.lease import Lineage
from ml_core.runs import RunDir

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
MANIFEST_FILE = "MANIFEST.json"
FORMAT = 1
_DAMAGED = (OSError, SafetensorError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory.

    `model_spec` rebuilds the network, `state` is the trainer's own; `weights_sha256` is the digest
    of model.safetensors, the name by which a report says what was scored.
    """

    path: Path
    model_spec: dict[str, Any]
    model_state: dict[str, torch.Tensor]
    optimizer_state: dict[str, Any]
    state: dict[str, Any]
    is_best: bool  # when it was written
    weights_sha256: str


def to_files(
    model: torch.nn.Module,
    model_spec: Mapping[str, Any],
    optimizer: torch.optim.Optimizer | None,
    state: Mapping[str, Any],
    *,
    is_best: bool,
    writer: str | None,
) -> dict[str, bytes]:
    """Return what goes into each file; `writer` is the token of the lease it is written under."""
    tensors, rest = flatten_optimizer(optimizer)
    document = {
        "model": dict(model_spec),
        "optimizer": rest,
        "state": dict(state),
        "is_best": is_best,
        "writer": writer,
    }
    files = {
        MODEL_FILE: to_bytes(on_cpu(model.state_dict())),
        OPTIMIZER_FILE: to_bytes(tensors),
        STATE_FILE: _to_json(document),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, MANIFEST_FILE: _to_json({"format": FORMAT, "sha256": digests})}


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a checkpoint so that it survives a power cut once its folder is synced."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: Path) -> Checkpoint:
    """Verify every digest of the checkpoint at `path`, then load it on the CPU.

    Raises CheckpointError naming the file that is missing or has changed, and where it was written
    by a process that another one had replaced by then (see `ml_core.lease`).
    """
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint {path}.")
    try:
        digests = _read_manifest(path / MANIFEST_FILE)
        for name in (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE):
            _verify(path / name, digests.get(name))
        document = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        _refuse_replaced_writer(path.resolve(), document.get("writer"))
        tensors = load_file(path / OPTIMIZER_FILE)
        return Checkpoint(
            path=path.resolve(),
            model_spec=document["model"],
            model_state=load_file(path / MODEL_FILE),
            optimizer_state=unflatten_optimizer(tensors, document["optimizer"]),
            state=document["state"],
            is_best=document["is_best"],
            weights_sha256=digests[MODEL_FILE],
        )
    except _DAMAGED as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error}.") from error


def was_best(path: Path) -> bool:
    """Return whether the checkpoint at `path` was the best when written, by its state.json alone.

    False where that is damaged, or its writer had been replaced.
    """
    try:
        document = _read_state(path)
        _refuse_replaced_writer(path, document.get("writer"))
        return bool(document["is_best"])
    except (CheckpointError, *_DAMAGED):
        return False


def writer_of(path: Path) -> str | None:
    """Return the token that the checkpoint at `path` carries; None without one, or if damaged."""
    try:
        return _read_state(path).get("writer")
    except (CheckpointError, *_DAMAGED):
        return None


def _read_state(path: Path) -> dict[str, Any]:
    """Return what state.json holds, once it is verified."""
    _verify(path / STATE_FILE, _read_manifest(path / MANIFEST_FILE).get(STATE_FILE))
    document: dict[str, Any] = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    return document


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint's folder."""
    return int(path.name.removeprefix("step-"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        manifest = json.loads(path.read_bytes())
        digests, found = dict(manifest["sha256"]), manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}.") from error
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found}; this version reads format {FORMAT}.")
    return digests


def _verify(file: Path, digest: str | None) -> None:
    """Raise CheckpointError unless `file` holds the bytes that were written."""
    if digest is None or not file.is_file():
        raise CheckpointError(
            f"the checkpoint {file.parent} is incomplete: {file.name} is missing."
        )
    try:
        found = sha256_of(file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}.") from error
    if found != digest:
        raise CheckpointError(
            f"{file} has changed since it was written: its SHA-256 is not the manifest's. "
            "Use another checkpoint of this run, or train again."
        )


def _refuse_replaced_writer(path: Path, writer: str | None) -> None:
    """Raise CheckpointError unless the run's lineage counts what `writer` wrote at this step."""
    lineage = Lineage.read(RunDir(path.parent.parent).lease_path)
    if lineage.generations and not lineage.accepts(writer, step_of(path)):
        raise CheckpointError(
            f"the checkpoint {path} was written by a process that another had replaced by then; "
            "the run goes on without it."
        )


def _to_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode()
