"""The same architecture as if it had never been trained."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ml_core.reproducibility import Stream, derive_seed


class NoRandomWeights(ValueError):
    """A layer cannot be drawn anew; the message says which, and what it lacks."""


def random_weights(model: nn.Module, seed: int, draw: int = 0) -> nn.Module:
    """Return a copy of `model` on its device with new random weights, in eval mode.

    Every layer is drawn anew by its own `reset_parameters`, as when it was built: the full
    randomisation of Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018. Buffers such as
    the preprocessing's stay. The weights follow from (seed, draw) and not from the device; torch's
    random state is as it was. Raises NoRandomWeights for a layer that cannot be drawn anew.
    """
    untrained = copy.deepcopy(model).cpu().eval()
    # The generator of the CPU alone: torch.manual_seed would set those of all devices for good.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, Stream.INIT, draw))
        for name, module in untrained.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif any(True for _ in module.parameters(recurse=False)):
                raise NoRandomWeights(
                    f"{name or 'the model'} ({type(module).__name__}) has weights of its own, but "
                    "no reset_parameters() to draw them anew with, as torch's layers have."
                )
    weights = next(model.parameters(), None)
    return untrained if weights is None else untrained.to(weights.device)
