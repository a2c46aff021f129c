"""Patches changed as the world changes them: brightness, tone curve, stain; and tables joined."""

import numpy as np
import pandas as pd

from ml_core.audit.measures.pixel_stats import STAINS
from ml_core.data.layout import SPLITS


def join(*tables):
    """Return the table of a data set from those of its splits."""
    table = pd.concat(tables, ignore_index=True)
    return table.assign(split=pd.Categorical(table["split"], SPLITS))


def brighter(levels, by=15):
    """Return the patches with `by` levels added to every channel, or to each its own."""
    return np.clip(levels + np.asarray(by, int), 0, 255).astype(np.uint8)


def with_gamma(levels, power=1.2):
    """Return the patches as a scanner of another tone curve shows them."""
    return np.rint(255 * (levels / 255) ** power).astype(np.uint8)


def restained(levels, haematoxylin=1.3, eosin=0.8):
    """Return the patches with other amounts of the two stains."""
    known = np.array(list(STAINS.values()))
    stains = np.vstack([known, np.cross(*known)])  # the third: what neither explains
    change = np.linalg.inv(stains) @ np.diag([haematoxylin, eosin, 1]) @ stains
    density = -np.log10((np.arange(256) + 1) / 256).astype(np.float32)
    changed = 256 * 10 ** -(density[levels] @ change.astype(np.float32)) - 1
    return np.clip(changed, 0, 255).round().astype(np.uint8)
