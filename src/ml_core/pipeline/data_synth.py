"""Write a synthetic H&E-like data set in PCam's layout.

ml-core data synth data/synthetic --train 4000 --valid 1000 --test 1000
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ml_core.data.synthetic import write_synthetic

logger = logging.getLogger("ml_core.data")


def data_synth(
    out_dir: Path, train: int, valid: int, test: int, *, seed: int = 0, force: bool = False
) -> dict[str, Any]:
    """Return {"data_path", "patches"}; raises DataError for a folder that cannot be written."""
    write_synthetic(out_dir, train, valid, test, seed, force=force)
    patches = {"train": train, "valid": valid, "test": test}
    logger.info("%s: %s", out_dir, ", ".join(f"{split} {n:,}" for split, n in patches.items()))
    return {"data_path": str(out_dir), "patches": patches}
