"""Tables as the audit's pass makes them, of patches in memory."""

import numpy as np
import pandas as pd

from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import measure_pixels
from ml_core.data.layout import SPLITS


def measure_table(levels, labels=None, split="train", **columns):
    """Return the table of one split; `columns` replace or add."""
    blocks = [measure_pixels(Block(levels[i : i + 32])) for i in range(0, len(levels), 32)]
    names = blocks[0] if blocks else ()
    measured = {name: np.concatenate([block[name] for block in blocks]) for name in names}
    zeros = np.zeros(len(levels), np.float32)
    return pd.DataFrame(
        {
            "split": pd.Categorical([split] * len(levels), categories=SPLITS),
            "index": np.arange(len(levels)),
            "label": np.int8(np.arange(len(levels)) % 2 if labels is None else labels),
            "share_nan": zeros,
            "share_out_of_range": zeros,
            **measured,
            **columns,
        }
    )
