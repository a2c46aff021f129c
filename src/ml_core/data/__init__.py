"""Patches on disk, and the batches made of them."""

from ml_core.data.loader import get_dataloaders
from ml_core.data.pcam import PCAMDataset

__all__ = ["PCAMDataset", "get_dataloaders"]
