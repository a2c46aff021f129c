"""The name of a state: one SHA-256 over every weight, buffer and optimizer tensor, bit for bit.

The same tensors have the same name on every machine: memory format, device and byte order do not
enter it, and -0.0 is another state than 0.0.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch

SHORT = 16  # hexadecimal digits that tell the tensors of one state from those of another


@dataclass(frozen=True)
class StateDigest:
    """`state` is the SHA-256 of all; `tensors` the first SHORT digits of each, in given order."""

    state: str
    tensors: dict[str, str]


def digest_state(tensors: Mapping[str, torch.Tensor]) -> StateDigest:
    """Return the digest of `tensors` and of each of them, in one reading of their bytes.

    A tensor's digest is the SHA-256 of the JSON list [name, dtype, shape], a newline and the
    values in row-major order, little-endian; the state's is that of the tensors' digests (32 bytes
    each) by rising name. So a reader needs only SHA-256 to check one tensor or all.
    """
    digests = {name: _digest(name, tensor) for name, tensor in tensors.items()}
    state = hashlib.sha256(b"".join(digests[name] for name in sorted(digests)))
    short = {name: digest.hex()[:SHORT] for name, digest in digests.items()}
    return StateDigest(state.hexdigest(), short)


def state_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 that names `tensors`, see `digest_state`."""
    return digest_state(tensors).state


def tensor_digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return the first 16 hexadecimal digits of each tensor's SHA-256, see `digest_state`."""
    return digest_state(tensors).tensors


def training_state(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, torch.Tensor]:
    """Return what a training goes on from, by name: "model.*", then "optimizer.PARAMETER.*".

    Not copies but the tensors themselves, on their device; digest them before the next step. A
    number that the optimizer keeps as such becomes a tensor of 64 bits. Learning rates are left
    out: they follow from the step.
    """
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if optimizer is None:
        return state
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in sorted(optimizer.state.get(parameter, {}).items()):
                if value is not None:
                    state[f"optimizer.{names[id(parameter)]}.{key}"] = _as_tensor(value)
    return state


def _as_tensor(value: torch.Tensor | float | int) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    dtype = torch.int64 if isinstance(value, int) else torch.float64
    return torch.tensor(value, dtype=dtype)


def _digest(name: str, tensor: torch.Tensor) -> bytes:
    header = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
    digest = hashlib.sha256(header.encode() + b"\n")
    digest.update(_little_endian(tensor))
    return digest.digest()


def _little_endian(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of the values; copied only from a GPU or another memory format."""
    flat = tensor.detach().cpu().reshape(-1)
    values = flat.view(torch.uint8).numpy()  # numpy has no bfloat16: bytes pass for every dtype
    if sys.byteorder == "big":
        values = values.reshape(-1, flat.element_size())[:, ::-1].reshape(-1).copy()
    return values.data
