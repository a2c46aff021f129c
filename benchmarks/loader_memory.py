"""How much memory the loader needs of its own, and whether that grows with the file.

    python benchmarks/loader_memory.py --out loader_memory.json

For each storage and size, a process of its own goes through one shuffled epoch in batches of 256
and looks at its private anonymous memory (Anonymous in /proc/self/smaps_rollup, the highest seen),
less that of Python with torch and the library imported. The page cache is not counted: the kernel
takes it back when anyone needs memory.

Wanted: under 500 MB, whatever the size of the file.
"""

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ml_core.data import PCAMDataset
from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.reproducibility import hardware_record

STORAGES: dict[str, dict[str, Any]] = {
    "uint8, contiguous": {"dtype": "u1"},
    "uint8, chunks of 16": {"dtype": "u1", "chunks": (16, 96, 96, 3)},
    "float32, contiguous": {"dtype": "f4"},
}
LIMIT_MB = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--patches", type=int, nargs="+", default=[5_000, 60_000])
    options = parser.parse_args()
    own_mb: dict[str, dict[int, float]] = {}
    for storage in STORAGES:
        own_mb[storage] = {}
        for num in options.patches:
            with tempfile.TemporaryDirectory() as folder:
                write_patches(Path(folder), num, STORAGES[storage])
                own_mb[storage][num] = measure_apart(folder)
            print(f"{storage:22} {num:8,} patches {own_mb[storage][num]:7.1f} MB", flush=True)
    worst = max(max(sizes.values()) for sizes in own_mb.values())
    print(f"at most {worst:.1f} MB  (wanted: under {LIMIT_MB})")
    if options.out:
        result = {"own_mb": own_mb, "machine": hardware_record()}
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def write_patches(folder: Path, num: int, storage: dict[str, Any]) -> None:
    """Write a train split of `num` random patches, stored in the given way."""
    paths = split_paths(folder, "train")
    tile = np.random.default_rng(0).integers(0, 256, (400, 96, 96, 3), dtype=np.uint8)
    with h5py.File(paths.x, "w") as file:
        x = file.create_dataset("x", (num, 96, 96, 3), **storage)
        for start in range(0, num, len(tile)):
            x[start : start + len(tile)] = tile[: num - start]
    with h5py.File(paths.y, "w") as file:
        file["y"] = (np.arange(num) % 2).reshape(-1, 1, 1, 1)


def measure_apart(folder: str) -> float:
    """Return the MB that one filtered, shuffled epoch takes in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_epoch, args=(folder, sender))
    process.start()
    sender.close()
    own_mb: float = receiver.recv()
    process.join()
    return own_mb


def run_epoch(folder: str, sender: Any) -> None:
    torch.set_num_threads(1)
    before = anonymous_mb()
    paths = split_paths(folder, "train")
    dataset = PCAMDataset(paths.x, paths.y, filter_data=True)
    highest = anonymous_mb()
    for batch in build_loader(dataset, 256, shuffle=True, balanced=True):
        assert batch.images.dtype == torch.uint8
        highest = max(highest, anonymous_mb())
    sender.send(highest - before)


def anonymous_mb() -> float:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("this kernel does not tell anonymous memory")


if __name__ == "__main__":
    main()
