"""Where a model fails without anybody having said where to look."""

from ml_core.evaluation.discovery.discover import discover_slices
from ml_core.evaluation.discovery.discovered import (
    Confirmed,
    DiscoveredSlice,
    Discovery,
    Look,
    Suggested,
)

__all__ = [
    "Confirmed",
    "DiscoveredSlice",
    "Discovery",
    "Look",
    "Suggested",
    "discover_slices",
]
