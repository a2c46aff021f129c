"""Whether reading feels the size of the file: 262,144 patches (7.2 GB) against 26,000.

    python benchmarks/large.py [--folder SCRATCH] [--out results/large.json]

Both files are flat uint8, written into SCRATCH (a temporary folder) and removed; both fit into the
page cache, else the disk is what is measured. Shuffled batches of 256, balanced by class:

  memory      the most private anonymous memory (Anonymous in /proc/self/smaps_rollup) of a process
              that goes through an epoch and draws the random words of its augmentation, less that
              of Python with torch and the library imported
  throughput  of the same number of patches of each, in turns, in one process: by the wall clock,
              and by the CPU time of this process, which neighbours disturb less. What came from the
              disk meanwhile is said: where that is not next to nothing, the cache did not hold them

Wanted: memory equal within 50 MB; throughput at least 0.95 (median of the rounds' ratios).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ml_core.data import PCAMDataset
from ml_core.data.augment import Augmenter
from ml_core.data.layout import split_paths
from ml_core.data.loader import PatchLoader, build_loader
from ml_core.data.read_through import read_through
from ml_core.reproducibility import hardware_record

SMALL, LARGE = 26_000, 262_144
BATCH_SIZE = 256
BATCHES_PER_TURN = 101  # an epoch of the small one
MOST_MB, LEAST_RATIO = 50.0, 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where there is room for 8 GB")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folders = {num: Path(scratch) / str(num) for num in (SMALL, LARGE)}
        for num, folder in folders.items():
            write_patches(folder, num)
        for folder in folders.values():
            read_through(split_paths(folder, "train").x, [])  # what others drove out of the cache
        rates, disk_mb = in_turns(folders, options.rounds)
        memory_mb = {num: measure_apart(folder) for num, folder in folders.items()}
    ratios = {clock: over_small(of_both) for clock, of_both in rates.items()}
    more_mb = memory_mb[LARGE] - memory_mb[SMALL]
    for num in folders:
        rate = statistics.median(rates["wall"][num])
        print(f"{num:8,} patches {rate:10,.0f} patches/s {memory_mb[num]:8.1f} MB")
    for clock, ratio in ratios.items():
        print(f"throughput {ratio:.3f} of the small one's by {clock} (wanted: {LEAST_RATIO})")
    print(f"{disk_mb:,.0f} MB came from the disk")
    print(f"memory {more_mb:+.1f} MB (wanted: at most {MOST_MB:g})")
    if options.out:
        document = {
            "hardware": hardware_record(), "patches_per_s": rates, "own_mb": memory_mb,
            "throughput_ratio": ratios, "from_disk_mb": round(disk_mb),
            "more_mb": round(more_mb, 1),
        }  # fmt: skip
        options.out.write_text(json.dumps(document, indent=2) + "\n")


def write_patches(folder: Path, num: int) -> None:
    """Write a train split of `num` random patches, which the page cache then holds."""
    folder.mkdir()
    paths = split_paths(folder, "train")
    tile = np.random.default_rng(0).integers(0, 256, (1024, 96, 96, 3), dtype=np.uint8)
    with h5py.File(paths.x, "w") as file:
        x = file.create_dataset("x", (num, 96, 96, 3), "u1")
        for start in range(0, num, len(tile)):
            x[start : start + len(tile)] = tile[: num - start]
    with paths.x.open("rb") as written:
        os.fsync(written.fileno())  # else the disk is at work on it while it is read
    with h5py.File(paths.y, "w") as file:
        file["y"] = (np.arange(num) % 2).reshape(-1, 1, 1, 1)


def loader_of(folder: Path) -> PatchLoader:
    paths = split_paths(folder, "train")
    dataset = PCAMDataset(paths.x, paths.y)
    return build_loader(dataset, BATCH_SIZE, shuffle=True, balanced=True)


def in_turns(
    folders: dict[int, Path], num_rounds: int
) -> tuple[dict[str, dict[int, list[float]]], float]:
    """Return patches per second of both in each round by each clock, and the MB read from disk.

    A turn goes on in the epoch where the one before it stopped.
    """
    clocks = {"wall": time.perf_counter, "CPU time": time.process_time}
    batches = {num: endless(loader_of(folder)) for num, folder in folders.items()}
    rates: dict[str, dict[int, list[float]]] = {
        each: {num: [] for num in folders} for each in clocks
    }
    from_disk = 0.0
    for number in range(num_rounds + 1):
        for num, endless_batches in batches.items():
            started = {name: clock() for name, clock in clocks.items()}
            count = sum(len(next(endless_batches).labels) for _ in range(BATCHES_PER_TURN))
            if number > 0:  # the first round warms up
                for name, clock in clocks.items():
                    rates[name][num].append(count / (clock() - started[name]))
            elif num == LARGE:
                from_disk = read_mb()
    return rates, read_mb() - from_disk


def over_small(rates: dict[int, list[float]]) -> float:
    pairs = zip(rates[SMALL], rates[LARGE], strict=True)
    return round(statistics.median(large / small for small, large in pairs), 3)


def read_mb() -> float:
    """Return how much this process has read from disks, proc(5); not what the cache gave it."""
    lines = Path("/proc/self/io").read_text().splitlines()
    (read_bytes,) = (line.split()[1] for line in lines if line.startswith("read_bytes:"))
    return int(read_bytes) / 1e6


def endless(loader: PatchLoader) -> Any:
    epoch = 0
    while True:
        loader.batch_sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def measure_apart(folder: Path) -> float:
    """Return the MB that a shuffled epoch takes in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_epoch, args=(folder, sender))
    process.start()
    sender.close()
    own_mb: float = receiver.recv()
    process.join()
    return own_mb


def run_epoch(folder: Path, sender: Any) -> None:
    torch.set_num_threads(1)
    before = anonymous_mb()
    loader = loader_of(folder)
    augment = Augmenter(0, loader.patches.num_rows)
    augment.set_epoch(0)
    highest = anonymous_mb()
    for batch in loader:
        augment(batch.images, batch.index)
        highest = max(highest, anonymous_mb())
    sender.send(highest - before)


def anonymous_mb() -> float:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("this kernel does not tell anonymous memory")


if __name__ == "__main__":
    main()
