"""Checkpoints that are whole or not there, and are verified before a byte of them is used.

    checkpoints/
        step-00000790/   model.safetensors  optimizer.safetensors  state.json  MANIFEST.json
        step-00000869/   ...
        best -> step-00000790
        last -> step-00000869

A checkpoint is written aside, fsynced and renamed, so a crash leaves the old one or the new one.
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
from safetensors.torch import load_file, save_file

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
    aside = directory / f".step-{step:08d}.{os.getpid()}.tmp"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        aside.mkdir()
        save_file(_on_cpu(model.state_dict()), aside / MODEL_FILE)
        tensors, rest = _flatten_optimizer(optimizer)
        save_file(tensors, aside / OPTIMIZER_FILE)
        document = {
            "format": FORMAT,
            "model": dict(model_spec),
            "optimizer": rest,
            "state": dict(state),
        }
        (aside / STATE_FILE).write_text(json.dumps(document, indent=1), encoding="utf-8")
        digests = {p.name: sha256_of(p) for p in sorted(aside.iterdir())}
        manifest = json.dumps({"format": FORMAT, "sha256": digests}, indent=1)
        (aside / MANIFEST_FILE).write_text(manifest, encoding="utf-8")
        for file in aside.iterdir():
            _fsync(file)
        _fsync(aside)
        if final.exists():  # the same step saved again, after an interrupt: same content
            shutil.rmtree(final)
        aside.rename(final)
        _fsync(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
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
        manifest = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
        digests: dict[str, str] = dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / MANIFEST_FILE} is missing or damaged: {error}.") from error
    for name in (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE):
        file = path / name
        if name not in digests or not file.is_file():
            raise CheckpointError(f"the checkpoint {path} is incomplete: {name} is missing.")
        if sha256_of(file) != digests[name]:
            raise CheckpointError(
                f"{file} has changed since it was written: its SHA-256 is not the manifest's. "
                "Use another checkpoint of this run, or train again."
            )
    try:
        document = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        tensors = load_file(path / OPTIMIZER_FILE)
        return Checkpoint(
            path=path.resolve(),
            model_spec=document["model"],
            model_state=load_file(path / MODEL_FILE),
            optimizer_state=_unflatten_optimizer(tensors, document["optimizer"]),
            state=document["state"],
            weights_sha256=digests[MODEL_FILE],
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error}.") from error


def load_last(directory: Path) -> Checkpoint:
    """Load the newest whole checkpoint; a damaged one is reported and the one before it is used."""
    generations = sorted(directory.glob("step-*"), reverse=True)
    if not generations:
        raise CheckpointError(f"{directory} holds no checkpoint; the run ended before its first.")
    for path in generations:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s Trying the checkpoint before it.", error)
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
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


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
    aside = directory / f".{name}.{os.getpid()}.tmp"
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.name)
    os.replace(aside, directory / name)
    _fsync(directory)


def _drop_old(directory: Path) -> None:
    """Keep the newest generations and whatever `best` points at."""
    best = (directory / "best").resolve()
    for path in sorted(directory.glob("step-*"), reverse=True)[KEEP:]:
        if path.resolve() != best:
            shutil.rmtree(path, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
