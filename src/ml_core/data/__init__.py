"""Patches on disk, and the batches made of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_core.data.loader import get_dataloaders
    from ml_core.data.pcam import PCAMDataset

__all__ = ["PCAMDataset", "get_dataloaders"]

_HOMES = {"PCAMDataset": "ml_core.data.pcam", "get_dataloaders": "ml_core.data.loader"}


def __getattr__(name: str) -> Any:
    """Load torch with the first data set or loader: auditing and moving files do without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
