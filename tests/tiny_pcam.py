"""A data set that a few steps learn: tumour patches are dark in the centre."""

from pathlib import Path

import h5py
import numpy as np
import yaml

from ml_core.data.layout import split_paths


def make_patches(labels, seed=0):
    """Return uint8 patches (N, 96, 96, 3) for labels (N,)."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(150, 230, (len(labels), 96, 96, 3), dtype=np.uint8)
    patches[np.asarray(labels) == 1, 32:64, 32:64] //= 3
    return patches


def write_split(folder, split, patches, labels):
    """Write one split in PCam's layout, with the dtypes and shapes that are given."""
    paths = split_paths(folder, split)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(paths.x, "w") as file:
        file["x"] = patches
    with h5py.File(paths.y, "w") as file:
        file["y"] = labels


def rewrite_train(folder, change):
    """Store train's patches again, as float32, after `change` of them."""
    path = split_paths(folder, "train").x
    with h5py.File(path) as file:
        patches = file["x"][:].astype(np.float32)
    change(patches)
    with h5py.File(path, "w") as file:
        file["x"] = patches


def write_tiny_pcam(folder, num_train=96, num_valid=64):
    """Write train and valid, half of each tumour; return the folder."""
    for seed, (split, num) in enumerate({"train": num_train, "valid": num_valid}.items()):
        labels = np.arange(num) % 2
        write_split(folder, split, make_patches(labels, seed), labels.reshape(-1, 1, 1, 1))
    return folder


def write_config(path: Path, data_path: Path, **sections):
    """Write a config that trains a small MLP in a second; `sections` replace or add keys."""
    raw = {
        "experiment_name": "tiny",
        "output_dir": str(path.parent / "runs"),
        "data": {"data_path": str(data_path), "batch_size": 32},
        "model": {"name": "mlp", "hidden_units": [16]},
        "training": {"epochs": 2},
        "tracking": {"tensorboard": False},
        "evaluation": {"num_resamples": 100},
    }
    for name, section in sections.items():
        if isinstance(section, dict) and isinstance(raw.get(name), dict):
            raw[name] = {**raw[name], **section}
        else:
            raw[name] = section
    path.write_text(yaml.safe_dump(raw))
    return path
