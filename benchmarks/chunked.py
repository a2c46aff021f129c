"""Files that HDF5 must decode: our batches against h5py reading the same chunks, each once.

    python benchmarks/chunked.py [--data FOLDER] [--out results/chunked.json]

The first 3,000 patches of FOLDER's train split (or made-up tissue) are stored in chunks of 1, 16
and 64 patches, plain and gzipped. Shuffled batches of 64 and 256 are then read, in turns:

  chunks   for each batch, the chunks its rows lie in, each by one slice of the whole chunk, held
           until the batch is there; no row is picked out of them, and no batch made
  ours     PatchFile.read of the same rows: chunks decoded once, rows picked and put in order
  loader   build_loader: with order, labels and rows besides
  packed   PatchFile.read of the same rows from a flat file: what `ml-core data pack` gives

Wanted: ours at least 0.9 times chunks (median of the rounds' ratios).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ml_core.data import PCAMDataset
from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.data.patch_file import Rows
from ml_core.data.synthetic import write_synthetic
from ml_core.reproducibility import hardware_record

NUM_PATCHES = 3_000
STORAGES = [(rows, filters) for filters in (None, "gzip") for rows in (1, 16, 64)]
BATCH_SIZES = (64, 256)
PATCHES_PER_TURN = 256
BAR = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder of PCam files")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        patches = some_patches(options.data, Path(scratch))
        flat = store(Path(scratch) / "flat", patches)
        for chunk_rows, compression in STORAGES:
            name = f"{compression or 'plain'}, {chunk_rows} to a chunk"
            folder = Path(scratch) / name
            chunks = (chunk_rows, *patches.shape[1:])
            dataset = store(folder, patches, chunks=chunks, compression=compression)
            for size in BATCH_SIZES:
                results[f"{name}, batches of {size}"] = measure(
                    dataset, flat, size, options.rounds, f"{name}, batches of {size}"
                )
    if options.out:
        document = {"hardware": hardware_record(), "bar": BAR, **results}
        options.out.write_text(json.dumps(document, indent=2) + "\n")


def some_patches(folder: Path | None, scratch: Path) -> Any:
    if folder is None:
        folder = scratch / "made up"
        write_synthetic(folder, num_train=NUM_PATCHES, num_valid=2, num_test=2)
    with h5py.File(split_paths(folder, "train").x) as file:
        return file["x"][:NUM_PATCHES]


def store(folder: Path, patches: Any, **storage: Any) -> PCAMDataset:
    folder.mkdir()
    paths = split_paths(folder, "train")
    with h5py.File(paths.x, "w") as file:
        file.create_dataset("x", data=patches, **storage)
    with h5py.File(paths.y, "w") as file:
        file["y"] = np.arange(len(patches)) % 2
    return PCAMDataset(paths.x, paths.y)


def measure(
    dataset: PCAMDataset, flat: PCAMDataset, size: int, num_rounds: int, name: str
) -> dict[str, Any]:
    """Return rates and ratios of the ways to read batches of `size`, printed as well."""
    loader = build_loader(dataset, size, shuffle=True, seed=0)
    # a copy: HDF5 gives two handles of one file one cache of chunks
    copy = shutil.copy(dataset.file.path, dataset.file.path.with_suffix(".copy"))
    with h5py.File(copy, locking=False) as file:
        chunked, chunk_rows = file["x"], dataset.file.chunk_rows

        def read_chunks(rows: Rows) -> list[Any]:
            chunks = np.unique(rows // chunk_rows).tolist()
            return [chunked[each * chunk_rows : (each + 1) * chunk_rows] for each in chunks]

        def load(number: int) -> None:
            loader.batch_sampler.set_epoch(number)
            for _, _batch in zip(range(PATCHES_PER_TURN // size), loader, strict=False):
                pass

        by_rows: dict[str, Callable[[Rows], Any]] = {
            "chunks": read_chunks,
            "ours": dataset.file.read,
            "packed": flat.file.read,
        }
        rates: dict[str, list[float]] = {each: [] for each in (*by_rows, "loader")}
        for number in range(num_rounds + 1):
            order = np.random.default_rng(number).permutation(len(dataset))[:PATCHES_PER_TURN]
            batches = [np.sort(order[at : at + size]) for at in range(0, len(order), size)]
            for way in rates:
                started = time.perf_counter()
                if way == "loader":
                    load(number)
                else:
                    for rows in batches:
                        by_rows[way](rows)
                if number > 0:  # the first round warms up
                    rates[way].append(PATCHES_PER_TURN / (time.perf_counter() - started))
    medians = {way: round(statistics.median(values)) for way, values in rates.items()}
    ratios = {
        way: round(
            statistics.median(a / b for a, b in zip(rates[way], rates["chunks"], strict=True)), 3
        )
        for way in ("ours", "loader", "packed")
    }
    print(f"{name:38} {medians['ours']:8,} patches/s", end="")
    print(f"  ours {ratios['ours']:5.2f}  loader {ratios['loader']:5.2f}", end="")
    print(f"  packed {ratios['packed']:7.1f}  times the chunks", flush=True)
    return {"patches_per_s": medians, "over_chunks": ratios}


if __name__ == "__main__":
    main()
