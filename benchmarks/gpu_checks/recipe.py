"""The recipe that is checked, experiments/configs/pcam_cnn.yaml, and patches to train it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from gpu_checks.asked import Asked
from ml_core.data.layout import split_paths

if TYPE_CHECKING:
    from ml_core.config import Config

RECIPE = Path(__file__).resolve().parents[2] / "experiments" / "configs" / "pcam_cnn.yaml"
TINY = (
    "model.widths=[8]", "model.average_orientations=false", "data.batch_size=16",
    "training.precision=fp32", "training.epochs=1",
)  # fmt: skip


def load_recipe(asked: Asked, data_dir: Path, *overrides: str) -> Config:
    """Return the recipe on the device that is asked for, smaller where that is tiny.

    `overrides`: KEY=VALUE, as for `ml-core train --set`.
    """
    from ml_core.config import Config

    own = [f"data.data_path={data_dir}", f"training.device={asked.device}"]
    return Config.load(RECIPE, [*own, *(TINY if asked.is_tiny else ()), *overrides])


def write_noise(folder: Path, num_train: int, num_valid: int) -> Path:
    """Write train and valid of random bytes, flat, and return `folder`.

    What patches show matters neither to the time that they take nor to the bits of a training.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, num in (("train", num_train), ("valid", num_valid)):
        paths = split_paths(folder, split)
        with h5py.File(paths.x, "w") as file:
            patches = file.create_dataset("x", (num, 96, 96, 3), dtype="uint8")
            for start in range(0, num, 1000):
                size = min(1000, num - start)
                patches[start : start + size] = rng.integers(0, 256, (size, 96, 96, 3), np.uint8)
        with h5py.File(paths.y, "w") as file:
            file["y"] = (np.arange(num) % 2).astype("uint8").reshape(-1, 1, 1, 1)
    return folder
