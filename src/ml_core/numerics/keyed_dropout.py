"""Dropout whose mask is a function of the patch: not of its batch, its place there or the device.

torch draws a mask for the whole batch from one generator, so a patch's mask depends on who else is
in the batch. Here unit u of the c-th dropout of a forward pass is kept or dropped by a hash of
(word of the patch, c, u): integers only, which are the same everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ml_core.errors import ConfigError
from ml_core.reproducibility import Stream, philox_words

# SplitMix64: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014;
# the constants of Vigna's splitmix64.c.
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

_CHANNELWISE = (F.dropout1d, F.dropout2d, F.dropout3d)  # they drop whole channels
_KEYED: dict[Callable[..., Tensor], inspect.Signature] = {
    function: inspect.signature(function) for function in (F.dropout, *_CHANNELWISE)
}


def dropout_words(seed: int, epoch: int, num_rows: int) -> npt.NDArray[np.uint64]:
    """Return one random word per row of the source file, (num_rows,): a function of all three."""
    return philox_words(seed, epoch, Stream.DROPOUT, num_rows)[:, 0].copy()


def keyed_dropout(
    words: npt.NDArray[np.uint64], device: torch.device | str
) -> AbstractContextManager[object]:
    """While inside, `F.dropout` in training draws from `words` (B,), one for each patch.

    It stands for the layers too: `nn.Dropout` and, channel by channel, `nn.Dropout1d` to `3d`. A
    unit is kept with probability 1 - p to within 2^-64 and then scaled by 1 / (1 - p). Enter it
    anew for every forward pass, since the calls are counted. Other random functions are left as
    they are. Raises ConfigError for a tensor whose first dimension is not the patches.
    """
    return _KeyedDropout(words, device)


class _KeyedDropout(TorchFunctionMode):
    def __init__(self, words: npt.NDArray[np.uint64], device: torch.device | str) -> None:
        super().__init__()
        self._words = words
        self._device = device
        self._num_calls = 0

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        signature = _KEYED.get(func)
        if signature is None:
            return func(*args, **(kwargs or {}))
        call = signature.bind(*args, **(kwargs or {}))
        call.apply_defaults()
        units, rate = call.arguments["input"], float(call.arguments["p"])
        if not call.arguments["training"] or rate == 0:
            return units
        with torch._C.DisableTorchFunction():  # the mask is ours: no other mode need know it
            return self._drop(units, rate, channelwise=func in _CHANNELWISE)

    def _drop(self, units: Tensor, rate: float, *, channelwise: bool) -> Tensor:
        if units.ndim == 0 or len(units) != len(self._words):
            raise ConfigError(
                f"dropout met a tensor of shape {tuple(units.shape)} in a batch of "
                f"{len(self._words)} patches; its first dimension must be the patches, so that "
                "each has a mask of its own. Move the patches to the front of that layer's input."
            )
        shape = units.shape[:2] + (1,) * (units.ndim - 2) if channelwise else units.shape
        keys = _row_keys(self._words, self._num_calls)
        self._num_calls += 1
        kept = _kept(keys.to(self._device), shape[1:].numel(), rate).view(shape)
        # two products of one rounding each; the scale is exact where 1 - p is a power of two
        return units * kept.to(units.dtype) * (1 / (1 - rate) if rate < 1 else 0.0)


def _row_keys(words: npt.NDArray[np.uint64], call: int) -> Tensor:
    """Return a key for each patch at the `call`-th dropout of the pass, int64 (B,)."""
    mixed = words + np.uint64((call + 1) * _GAMMA % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
    return torch.from_numpy((mixed ^ (mixed >> np.uint64(31))).view(np.int64))


def _kept(keys: Tensor, num_units: int, rate: float) -> Tensor:
    """Return which units are kept, bool (B, num_units).

    int64 wraps on every device; its right shift carries the sign, hence the masks. SplitMix64's
    last step is left out: it touches the low bits only, and the comparison is about the high ones.
    """
    unit = torch.arange(1, num_units + 1, device=keys.device).mul_(_signed(_GAMMA))
    mixed = keys[:, None] + unit
    mixed.bitwise_xor_((mixed >> 30).bitwise_and_(2**34 - 1)).mul_(_signed(_FIRST))
    mixed.bitwise_xor_((mixed >> 27).bitwise_and_(2**37 - 1)).mul_(_signed(_SECOND))
    return mixed >= min(round(rate * 2**64), 2**64 - 1) - 2**63


def _signed(word: int) -> int:
    """Return the int64 with the bits of `word`."""
    return word - 2**64 if word >= 2**63 else word
