"""The watch over training: values that are not finite, and a model that does not learn.

Each check says what it saw in numbers; none of them changes the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ml_core.findings import Finding
from ml_core.metrics import auc_standard_error, compute_metrics

CONSTANT_RANGE = 1e-3  # probabilities closer together than this say the same of every patch
PRIOR_TOLERANCE = 0.01  # nats around the loss of a model that knows only the class shares
DEAD_SHARE = 0.5  # of a layer's units
Z_95 = 1.959964


def check_learning(
    y_true: npt.NDArray[np.int64],
    y_prob: npt.NDArray[np.float64],
    nll: npt.NDArray[np.float64],
    dead_units: dict[str, tuple[int, int]],
) -> list[Finding]:
    """Return findings about one validation pass; "not-learning" when its ROC-AUC is not above 0.5.

    `dead_units` maps a layer to (units that are zero for every patch seen, units). Signs that go
    with a model at chance are its reasons; without that, dead units are a warning of their own.
    With one class only there is no AUC, and nothing is said about learning.
    """
    metrics = compute_metrics(y_true, y_prob, nll=nll)
    auc, loss, share = metrics["roc_auc"], metrics["loss"], metrics["prevalence"]
    half = Z_95 * auc_standard_error(y_true, y_prob)
    dead = [
        f"{count} of {units} units of {layer} are zero for every patch"
        for layer, (count, units) in dead_units.items()
        if count >= DEAD_SHARE * units
    ]
    if not auc - half <= 0.5:  # true of NaN as well
        return [Finding("dead-units", "warning", f"dead units: {'; '.join(dead)}.")] if dead else []
    reasons = []
    if (spread := float(np.ptp(y_prob))) < CONSTANT_RANGE:
        reasons.append(
            f"every patch gets nearly the same probability ({y_prob.min():.4f} to "
            f"{y_prob.max():.4f}, {spread:.1g} apart)"
        )
    prior_loss = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    if abs(loss - prior_loss) < PRIOR_TOLERANCE:
        reasons.append(
            f"the loss {loss:.4f} is that of a model which knows only that {share:.0%} of the "
            f"patches are tumour ({prior_loss:.4f})"
        )
    because = "; ".join(reasons + dead) or "no further sign"
    low, high = max(0.0, auc - half), min(1.0, auc + half)
    return [
        Finding(
            "not-learning",
            "error",
            f"not learning: ROC-AUC {auc:.3f}, 95 % interval {low:.3f} to {high:.3f}, is not above "
            f"0.5. {because[0].upper()}{because[1:]}.",
        )
    ]


@torch.inference_mode()
def find_dead_units(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Return, per ReLU, (units that are zero for all of `images` (B, C, H, W), units).

    A unit is a channel of a feature map or an element of a vector, as dimension 1 counts them.
    """
    found: dict[str, tuple[int, int]] = {}

    def note(name: str, output: torch.Tensor) -> None:
        highest = output.transpose(0, 1).flatten(1).amax(dim=1)
        found[name] = (int((highest <= 0).sum()), len(highest))

    with _hooked(model, nn.ReLU, note):
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            model(images)
        finally:
            for module, mode in modes:
                module.training = mode
    return found


def explain_non_finite(
    model: nn.Module, images: torch.Tensor, index: Sequence[int], *, loss: float, step: int
) -> str:
    """Return which of inputs, weights, activations, loss and gradients went bad first, and where.

    Called once, on the batch that stopped training; the forward pass is run again with hooks.
    """
    named = ", ".join(str(i) for i in index[:10]) + (", ..." if len(index) > 10 else "")
    where = f"step {step}, patches {named}"
    if images.is_floating_point() and not bool(images.isfinite().all()):
        bad = (~images.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
        rows = ", ".join(str(index[i]) for i in bad[:10])
        return (
            f"{where}: the inputs went bad first: {len(bad)} of {len(images)} patches of this "
            f"batch hold NaN or infinite pixels (index {rows})"
        )
    weights = [n for n, p in model.named_parameters() if not bool(p.isfinite().all())]
    if weights:
        return (
            f"{where}: the weights went bad first: {weights[0]} holds NaN or infinite values "
            f"({len(weights)} parameters do), so an earlier update was too large"
        )
    with torch.no_grad():
        bad_layers: list[str] = []

        def note(name: str, output: torch.Tensor) -> None:
            if not bool(output.isfinite().all()):
                bad_layers.append(name)

        with _hooked(model, nn.Module, note):
            model(images)
    if bad_layers:
        return (
            f"{where}: inputs and weights are finite, the output of {bad_layers[0]} went bad "
            "first: the numbers overflow in the forward pass"
        )
    if not math.isfinite(loss):
        return f"{where}: inputs, weights and logits are finite, the loss itself is {loss}"
    gradients = [
        n
        for n, p in model.named_parameters()
        if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    # Gradients flow from the last layer to the first, so the last bad one was bad first.
    what = f"the gradient of {gradients[-1]}" if gradients else "the norm of all gradients together"
    return f"{where}: the loss {loss:.4g} is finite, {what} went bad first"


@contextmanager
def _hooked(
    model: nn.Module, kind: type[nn.Module], note: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Call note(name, output) for every module of `kind` in `model` while inside."""

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                note(name, output)

        return hook

    handles = [
        module.register_forward_hook(hook_for(name or "the model"))
        for name, module in model.named_modules()
        if isinstance(module, kind)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
