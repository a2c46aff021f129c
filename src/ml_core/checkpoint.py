"""Checkpoints that are whole or not there, and are verified before a byte of them is used.

    checkpoints/
        step-00000790/   model.safetensors  optimizer.safetensors  state.json  MANIFEST.json
        step-00000869/   ...
        best -> step-00000790
        last -> step-00000869

A checkpoint is written aside, fsynced and renamed, so a crash leaves the old one or the new one.
One process writes to the directory at a time.
MANIFEST.json holds the SHA-256 of every other file: neither torch's zip nor safetensors notices a
flipped bit (976 and 996 of 1,000 flips loaded silently wrong), the digests notice every one.
Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from ml_core.durable import sync
from ml_core.errors import CheckpointError

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
MANIFEST_FILE = "MANIFEST.json"
FORMAT = 1
KEEP = 3  # generations besides best, should the newest turn out damaged

logger = logging.getLogger("ml_core.checkpoint")


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


def save_checkpoint(
    directory: Path,
    step: int,
    *,
    model: torch.nn.Module,
    model_spec: Mapping[str, Any],
    optimizer: torch.optim.Optimizer | None,
    state: Mapping[str, Any],
    best: bool,
) -> Path:
    """Write `directory/step-N`, point `last` (and `best`) at it, and drop old generations.

    Raises OSError when the disk is full or the folder cannot be written; what was there stays.
    """
    final = directory / f"step-{step:08d}"
    aside = directory / f".step-{step:08d}.tmp"
    tensors, rest = _flatten_optimizer(optimizer)
    document = {"model": dict(model_spec), "optimizer": rest, "state": dict(state), "is_best": best}
    contents = {
        MODEL_FILE: to_bytes(_on_cpu(model.state_dict())),
        OPTIMIZER_FILE: to_bytes(tensors),
        STATE_FILE: _json_bytes(document),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[MANIFEST_FILE] = _json_bytes({"format": FORMAT, "sha256": digests})
    directory.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    try:
        aside.mkdir()
        for name, content in contents.items():
            _write(aside / name, content)
        sync(aside)
        if final.exists():  # the same step again, after a resume from an earlier one
            final.rename(directory / f".{final.name}.old.tmp")
        aside.rename(final)
        sync(directory)
    finally:
        _remove_leftovers(directory)
    _point(directory, "last", final)
    if best:
        _point(directory, "best", final)
    _drop_old(directory)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Verify every digest of the checkpoint at `path`, then load it on the CPU.

    Raises CheckpointError naming the file that is missing or has changed.
    """
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint {path}.")
    try:
        digests = _read_manifest(path / MANIFEST_FILE)
        for name in (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE):
            _verify(path / name, digests.get(name))
        document = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        tensors = load_file(path / OPTIMIZER_FILE)
        return Checkpoint(
            path=path.resolve(),
            model_spec=document["model"],
            model_state=load_file(path / MODEL_FILE),
            optimizer_state=_unflatten_optimizer(tensors, document["optimizer"]),
            state=document["state"],
            is_best=document["is_best"],
            weights_sha256=digests[MODEL_FILE],
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error}.") from error


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


def load_last(directory: Path) -> Checkpoint:
    """Load the newest whole checkpoint; a damaged one is reported and the one before it is used.

    Where a save was killed before `best` was pointed at it, that is done now: the run goes on
    believing in this best epoch, and `best` must not stay another.
    """
    generations = sorted(directory.glob("step-*"), reverse=True)
    if not generations:
        raise CheckpointError(f"{directory} holds no checkpoint; the run ended before its first.")
    for path in generations:
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s Trying the checkpoint before it.", error)
            continue
        if checkpoint.is_best and (directory / "best").resolve().name < path.name:
            _point(directory, "best", path)
        return checkpoint
    raise CheckpointError(f"every checkpoint in {directory} is damaged; the run cannot go on.")


def load_best(directory: Path) -> Checkpoint:
    """Load the checkpoint that `best` points at."""
    return load_checkpoint(directory / "best")


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put a checkpoint's state into `optimizer`, each tensor in its parameter's memory format.

    The format matters: kernels that run over strided memory may round differently, and then a
    resumed run would not be the same run.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter).copy_(value)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # clones, since safetensors refuses two names for one tensor (tied weights)
    layout = torch.contiguous_format
    return {name: t.detach().cpu().clone(memory_format=layout) for name, t in state.items()}


def _flatten_optimizer(
    optimizer: torch.optim.Optimizer | None,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors by name and the JSON-able rest."""
    if optimizer is None:
        return {}, {"param_groups": [], "scalars": {}}
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            place = tensors if isinstance(value, torch.Tensor) else scalars
            place[f"{index}.{key}"] = value
    return _on_cpu(tensors), {"param_groups": state["param_groups"], "scalars": scalars}


def _unflatten_optimizer(
    tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]
) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *rest["scalars"].items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": rest["param_groups"]}


def _point(directory: Path, name: str, target: Path) -> None:
    """Make the link `name` point at `target`; readers see the old or the new target."""
    aside = directory / f".{name}.tmp"
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.name)
    os.replace(aside, directory / name)
    sync(directory)


def _drop_old(directory: Path) -> None:
    """Keep the newest generations and whatever `best` points at."""
    best = (directory / "best").resolve()
    for path in sorted(directory.glob("step-*"), reverse=True)[KEEP:]:
        if path.resolve() != best:
            shutil.rmtree(path, ignore_errors=True)


def _remove_leftovers(directory: Path) -> None:
    """Remove what a save that was killed, or has failed, left behind."""
    for path in directory.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode()


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
