"""The only inference path: whoever turns patches into probabilities does it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ml_core.errors import DataError, TrainingError
from ml_core.evaluation.predictions import Predictions, sigmoid
from ml_core.numerics.arithmetic import PRECISIONS, arithmetic

_FIRST_ROWS = 65_536  # a megabyte for all columns: more than most splits have
_NAMED = 10  # how many patches an error lists

# A convolution's maps of this many patches stay in the caches of a core; of 256 they go through
# memory, layer by layer. Of 4, 8, ..., 256 the fastest for networks of 0.3 and 2.6 million weights.
_PATCHES_PER_THREAD = 16


class PatchBatch(Protocol):
    """What is needed of a batch; `ml_core.data` gives it, and so may anyone else."""

    @property
    def images(self) -> torch.Tensor: ...  # (B, 3, H, W), grey levels 0..255

    @property
    def labels(self) -> torch.Tensor | None: ...  # (B,)

    @property
    def index(self) -> torch.Tensor | npt.NDArray[np.int64]: ...  # (B,)


def predict(
    model: nn.Module,
    batches: Iterable[PatchBatch],
    device: torch.device | str,
    *,
    precision: str = "fp32",
    progress: Callable[[int], object] | None = None,
    split: str = "",
) -> Predictions:
    """Return the predictions of `model` for every patch of `batches`, in their order.

    The model is put in eval mode and every module is given its own mode back afterwards; weights,
    buffers and gradients are not touched. `progress` is called with the number of patches of each
    batch. Logits stay on the device until the end, so that a GPU is never waited for. On a CPU a
    network of convolutions gets each batch in pieces that its caches hold, which moves a logit by
    its rounding at most.

    Raises DataError without a patch, where only some batches have labels, or where an image holds
    values that are not finite; TrainingError where the model makes such logits of sound images.
    Both name the patches by index.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(PRECISIONS)}")
    device = torch.device(device)
    logits, labels, index, image_ok = _Column(), _Column(), _Column(), _Column()
    num_batches = num_labelled = 0
    piece = _piece_size(model, device, precision)
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            images = batch.images.to(device, non_blocking=True)
            with arithmetic(precision, device.type):
                batch_logits = _forward(model, images, piece)  # (B, 2)
            if batch_logits.shape != (len(images), 2):
                raise ValueError(
                    f"the model gives {tuple(batch_logits.shape)} for {len(images)} patches; "
                    f"needed are logits of shape ({len(images)}, 2), normal and tumour."
                )
            num_batches += 1
            logits.add(batch_logits.detach().float())
            image_ok.add(_finite_images(images))
            index.add(torch.as_tensor(batch.index))
            if batch.labels is not None:
                num_labelled += 1
                labels.add(torch.as_tensor(batch.labels))
            if progress is not None:
                progress(len(images))
    if num_batches == 0:
        raise DataError("there is nothing to predict: the data gave no patch.")
    if num_labelled not in (0, num_batches):
        raise DataError(
            f"{num_labelled} of {num_batches} batches have labels; "
            "allowed are labels for all patches or for none."
        )
    all_logits = logits.gathered().astype(np.float64)  # (N, 2)
    all_index = index.gathered().astype(np.int64)
    _check_finite(all_logits, image_ok.gathered(), all_index)
    logit = all_logits[:, 1] - all_logits[:, 0]
    return Predictions(
        split=split,
        index=all_index,
        y_true=labels.gathered().astype(np.int64) if num_labelled else None,
        y_prob=sigmoid(logit),
        logit=logit,
    )


def _piece_size(model: nn.Module, device: torch.device, precision: str) -> int | None:
    """Return how many patches `model` gets at once, None for a whole batch.

    Linear layers want many, since their weights are read anew for each piece; a GPU wants many; and
    exact arithmetic cuts what it is given by itself.
    """
    has_maps = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if device.type != "cpu" or precision == "exact" or not has_maps:
        return None
    return _PATCHES_PER_THREAD * torch.get_num_threads()


def _forward(model: nn.Module, images: torch.Tensor, piece: int | None) -> torch.Tensor:
    """Return the logits (B, 2) of `images`, `piece` of them at once."""
    if piece is None or len(images) <= piece:
        logits: torch.Tensor = model(images)
        return logits
    parts = (images[start : start + piece] for start in range(0, len(images), piece))
    return torch.cat([model(part) for part in parts])


class _Column:
    """Rows of all batches in one tensor, on their device, that doubles when it is full.

    A list of small tensors would pin the heap between two batches of images: glibc then puts each
    batch behind the last, and the process grows by the size of the data (0.5 GB for 16,384).
    """

    def __init__(self) -> None:
        self._rows: torch.Tensor | None = None
        self._num = 0

    def add(self, rows: torch.Tensor) -> None:
        """Append `rows` (B, ...), of the shape, type and device of those before."""
        stop = self._num + len(rows)
        if self._rows is None:
            self._rows = rows.new_empty((max(_FIRST_ROWS, stop), *rows.shape[1:]))
        elif stop > len(self._rows):
            larger = rows.new_empty((max(2 * len(self._rows), stop), *rows.shape[1:]))
            larger[: self._num] = self._rows[: self._num]
            self._rows = larger
        self._rows[self._num : stop] = rows
        self._num = stop

    def gathered(self) -> npt.NDArray[Any]:
        """Return all rows, in their order."""
        assert self._rows is not None, "at least one batch was added"
        return np.asarray(self._rows[: self._num].cpu().numpy())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode; afterwards each module again has the mode it had by itself.

    `model.train()` would not do: it wakes a layer that was frozen by `layer.eval()`.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _finite_images(images: torch.Tensor) -> torch.Tensor:
    """Return which images hold only finite values, (B,); bytes always do."""
    if not images.is_floating_point():
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    return images.isfinite().flatten(1).all(dim=1)


def _check_finite(
    logits: npt.NDArray[np.float64], image_ok: npt.NDArray[np.bool_], index: npt.NDArray[np.int64]
) -> None:
    bad = np.asarray(~np.isfinite(logits).all(axis=1))
    if not bad.any():
        return
    bad_images = bad & ~image_ok
    if bad_images.any():
        raise DataError(
            f"{int(bad_images.sum())} of {len(bad)} patches hold pixels that are NaN or infinite: "
            f"{_name(index[bad_images])}. Exclude them, or repair the file."
        )
    raise TrainingError(
        f"the model gives logits that are NaN or infinite for {int(bad.sum())} of {len(bad)} "
        f"patches whose pixels are finite: {_name(index[bad])}. Its weights have diverged: "
        "go back to an earlier checkpoint, or train with a lower learning rate."
    )


def _name(index: npt.NDArray[np.int64]) -> str:
    listed = ", ".join(str(i) for i in index[:_NAMED])
    return f"index {listed}" + (", ..." if len(index) > _NAMED else "")
