"""Forward passes and training steps over batch sizes, each variant in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.pipeline.benchmarking.figures import (
    AtBatch,
    Computing,
    Latency,
    Limit,
    Variant,
    Work,
)
from ml_core.pipeline.benchmarking.measuring.batch_sizes import Piece, measure_sizes
from ml_core.pipeline.benchmarking.measuring.child import in_child
from ml_core.pipeline.benchmarking.measuring.device_faults import gone
from ml_core.pipeline.benchmarking.measuring.variants import variants_of, why_not

__all__ = ["measure_computing", "variants_of"]


def measure_computing(
    config: Config,
    work: Work,
    variant: Variant,
    sizes: Sequence[int],
    *,
    budget_s: float,
    report: Callable[[Computing], None] = lambda _: None,
) -> Computing:
    """Return the rates of `work` over `sizes`; `report` is told after each what is known so far.

    `budget_s` for each size, and for the latency of a forward pass. Whatever ends the process that
    computes, memory above all, is the Limit of what is returned. Raises DataError where the patches
    cannot be read, ConfigError where the device is gone.
    """
    found, rising = Computing(work, variant), tuple(sorted(set(sizes)))
    if why := why_not(work, variant):
        found = replace(found, failed=why)
        report(found)
        return found

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.cuda.empty_cache()  # what this process keeps for later, the child lacks

    def add(piece: Piece) -> None:
        nonlocal found
        found = with_piece(found, piece)
        report(found)

    _, why_ended = in_child(measure_sizes, config, work, variant, rising, budget_s, on_report=add)
    if why_ended:
        _refuse_lost(variant.device, why_ended)
        if found.limit is None and not found.failed and len(found.at) < len(rising):
            add(Limit(rising[len(found.at)], why_ended))
    return found


def with_piece(found: Computing, piece: Piece) -> Computing:
    """Return `found` with one more thing that a child has reported."""
    if isinstance(piece, Latency):
        return replace(found, latency=piece)
    if isinstance(piece, AtBatch):
        return replace(found, at=(*found.at, piece))
    if isinstance(piece, Limit):
        return replace(found, limit=piece)
    return replace(found, failed=piece)


def _refuse_lost(device: str, why_ended: str) -> None:
    """Raise ConfigError unless `device` still answers: after an error a GPU may, or may be gone."""
    if device != "cpu":
        _, why = in_child(_touch, device)
        if why:
            raise ConfigError(gone(device, why_ended))


def _touch(report: Callable[[float], None], device: str) -> None:
    report(float(torch.ones(1, device=device).sum()))
