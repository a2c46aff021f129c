"""What a model remembers of the patches that it met, and ranks would remember differently."""

from __future__ import annotations

from torch import nn

from ml_core.errors import ConfigError

Versions = dict[str, tuple[int, int]]


def refuse_running_statistics(model: nn.Module, numerics: str) -> None:
    """Raise ConfigError for a layer that remembers the micro-batches it has seen, and their order.

    Each rank sees others. What such a layer does with the micro-batch itself would be the same.
    """
    for name, module in model.named_modules():
        if getattr(module, "running_mean", None) is not None:
            raise ConfigError(
                f"{name} ({type(module).__name__}) keeps running statistics of the micro-batches "
                f"it meets, which training.numerics: {numerics} deals out to ranks. Use GroupNorm "
                "or LayerNorm, track_running_stats=False, or training.numerics: fast."
            )


def buffer_versions(model: nn.Module) -> Versions:
    """Return for each buffer which tensor it is, and how often its numbers were written to."""
    return {name: (id(buffer), buffer._version) for name, buffer in model.named_buffers()}


def refuse_changed_buffers(model: nn.Module, before: Versions, numerics: str) -> None:
    """Raise ConfigError for a buffer that was written to since `before`, by a forward pass.

    Running statistics are the best known of those; spectral_norm, for one, has some too.
    """
    for name, version in buffer_versions(model).items():
        if before.get(name) != version:
            raise ConfigError(
                f"the model writes to its buffer {name} with every micro-batch it meets, which "
                f"training.numerics: {numerics} deals out to ranks: each would have its own. Leave "
                "that layer out, or use training.numerics: fast."
            )
