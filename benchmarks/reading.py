"""How fast shuffled batches come off a flat file: our ways against those people use today.

    python benchmarks/reading.py [--data FOLDER] [--out results/reading.json]

A uint8 file in the page cache: the train split of FOLDER, or 30,000 random patches (0.8 GB) made on
the spot. All ways read batches of 64, then of 256, in this process on one thread but where workers
are named. They take turns; a ratio is the median of the ratios of the rounds, by the wall clock and
by the CPU time of this process, which neighbours disturb less and workers escape.

  torchvision   per item: open both HDF5 files, read one patch, PIL image, ToTensor, its collate,
                as torchvision.datasets.PCAM does it; also with 2 workers
  per item      per item: one read of an HDF5 file that stays open, as floats; also with 2 workers
  webdataset    tar shards of .npy, shuffled by a buffer of 1,000; where that package is installed
  memcpy        as many bytes, from memory to memory, in one piece
  gather        memmap[sorted rows], and nothing else: a file that is cut short kills the process
  read          the same rows by PatchFile.read, a preadv for each run of rows
  file, ram     build_loader, shuffled, balanced by class, labels and rows included, by
                data.placement: from the file, or from memory where all was read once

Wanted: file at least 50 times torchvision, ram 0.8 times the gather. file reaches 0.3 to 0.7 of it:
the kernel copies page by page, and more slowly than a process does. Excluded: what a device has to
do besides, which for ours is making floats of bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from ml_core.data import PCAMDataset
from ml_core.data.layout import SplitPaths, load_labels, split_paths
from ml_core.data.loader import build_loader
from ml_core.data.patch_file import Rows
from ml_core.reproducibility import hardware_record

Turn = Callable[[int], int]  # of the number of a round; returns how many patches were read
BATCH_SIZES = (64, 256)
SLOW_PATCHES = 512  # of a turn of ways that read a patch at a time, of others it is an epoch
SHARDED_PATCHES = 8192
BARS = {"file / torchvision": 50.0, "ram / gather": 0.8}
ALSO = (
    "file / gather", "read / gather", "file / per item", "file / per item, 2 workers",
    "file / torchvision, 2 workers", "file / webdataset", "ram / memcpy", "gather / memcpy",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder of PCam files, read in its train split")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        if options.data is None:
            write_patches(Path(scratch), 30_000)
        paths = split_paths(options.data or scratch, "train")
        for size in BATCH_SIZES:
            rates = in_turns(ways_of(paths, size, Path(scratch)), options.rounds)
            results[str(size)] = told(size, rates)
    if options.out:
        document = {"hardware": hardware_record(), "webdataset": has_webdataset(), **results}
        options.out.write_text(json.dumps(document, indent=2) + "\n")


def write_patches(folder: Path, num: int) -> None:
    """Write a train split of `num` random patches, in PCam's layout."""
    paths = split_paths(folder, "train")
    tile = np.random.default_rng(0).integers(0, 256, (500, 96, 96, 3), dtype=np.uint8)
    with h5py.File(paths.x, "w") as file:
        x = file.create_dataset("x", (num, 96, 96, 3), "u1")
        for start in range(0, num, len(tile)):
            x[start : start + len(tile)] = tile[: num - start]
    with h5py.File(paths.y, "w") as file:
        file["y"] = (np.arange(num) % 2).reshape(-1, 1, 1, 1)


def in_turns(ways: dict[str, Turn], num_rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return patches per second in each round, by each clock, of each of the ways."""
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    rates: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in ways} for clock in clocks
    }
    for number in range(num_rounds + 1):
        for name, turn in ways.items():
            started = {clock: now() for clock, now in clocks.items()}
            num = turn(number)
            if number > 0:  # the first round warms up, and starts the workers
                for clock, now in clocks.items():
                    rates[clock][name].append(num / (now() - started[clock]))
    return rates


def told(size: int, rates: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Print the figures of batches of `size`, and return them."""
    print(f"batches of {size}")
    for name, values in rates["wall"].items():
        low, high = min(values), max(values)
        print(f"  {name:24} {statistics.median(values):10,.0f} patches/s ({low:,.0f}..{high:,.0f})")
    ratios = {}
    for pair in (*BARS, *ALSO):
        over, _, under = pair.partition(" / ")
        if under not in rates["wall"]:  # a package that is not installed
            continue
        ratios[pair] = {
            clock: ratio_of(each[over], each[under])
            for clock, each in rates.items()
            if clock == "wall" or "workers" not in pair
        }
        bar = f"  (wanted: {BARS[pair]:g})" if pair in BARS else ""
        in_words = ", ".join(f"{ratio:.2f} by {clock}" for clock, ratio in ratios[pair].items())
        print(f"  {pair:30} {in_words}{bar}")
    return {"patches_per_s": rates, "ratios": ratios}


def ratio_of(over: list[float], under: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(over, under, strict=True)), 3)


# ---- the ways ----------------------------------------------------------------------------------


def ways_of(paths: SplitPaths, size: int, scratch: Path) -> dict[str, Turn]:
    """Return every way to read batches of `size` of the split at `paths`."""
    ways: dict[str, Turn] = {}
    for name, items in (("torchvision", TorchvisionPCAM), ("per item", OpenFile)):
        for num_workers in (0, 2):
            told_workers = f", {num_workers} workers" if num_workers else ""
            ways[f"{name}{told_workers}"] = item_turn(items(paths), size, num_workers)
    if has_webdataset():
        ways["webdataset"] = webdataset_turn(paths, size, scratch)
    return {**ways, **bare_turns(paths, size), **our_turns(paths, size)}


def item_turn(items: Dataset[Any], size: int, num_workers: int) -> Turn:
    loader: DataLoader[Any] = DataLoader(
        items,
        size,
        sampler=RandomSampler(items, num_samples=SLOW_PATCHES),  # type: ignore[arg-type]
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    return lambda _: sum(len(images) for images, _ in loader)


def bare_turns(paths: SplitPaths, size: int) -> dict[str, Turn]:
    """Return memcpy, the gather of a map, and what PatchFile makes of the same rows."""
    dataset = PCAMDataset(paths.x, paths.y)
    with h5py.File(paths.x) as file:
        offset, shape = file["x"].id.get_offset(), file["x"].shape
    mapped = np.memmap(paths.x, np.uint8, "r", offset, shape)
    held = np.array(mapped)
    starts = range(0, len(mapped), size)

    def batches(number: int) -> Iterator[Rows]:
        order = np.random.default_rng(number).permutation(len(mapped))
        return (np.sort(order[start : start + size]) for start in starts)

    return {
        "memcpy": lambda _: sum(len(held[start : start + size].copy()) for start in starts),
        "gather": lambda number: sum(len(mapped[rows]) for rows in batches(number)),
        "read": lambda number: sum(len(dataset.file.read(rows)) for rows in batches(number)),
    }


def our_turns(paths: SplitPaths, size: int) -> dict[str, Turn]:
    turns: dict[str, Turn] = {}
    for placement in ("file", "ram"):
        dataset = PCAMDataset(paths.x, paths.y)
        if placement == "ram":
            dataset.hold(torch.device("cpu"))
        loader = build_loader(dataset, size, shuffle=True, balanced=True, seed=0)

        def turn(number: int, loader: Any = loader) -> int:
            loader.batch_sampler.set_epoch(number)
            return sum(len(batch.images) for batch in loader)

        turns[placement] = turn
    return turns


class TorchvisionPCAM(Dataset[Any]):
    """What torchvision.datasets.PCAM with ToTensor does, from its public documentation."""

    def __init__(self, paths: SplitPaths) -> None:
        self.paths = paths
        with h5py.File(paths.x) as file:
            self.num = len(file["x"])

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        with h5py.File(self.paths.x) as file:
            image = Image.fromarray(file["x"][i]).convert("RGB")
        with h5py.File(self.paths.y) as file:
            label = int(file["y"][i, 0, 0, 0])
        pixels = torch.from_numpy(np.array(image))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255), label


class OpenFile(TorchvisionPCAM):
    """One patch of an HDF5 file that each process opens once, as a float tensor."""

    file: h5py.File | None = None

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        if self.file is None:
            self.file = h5py.File(self.paths.x)
            self.labels = load_labels(self.paths.y)
        pixels = torch.from_numpy(self.file["x"][i])
        return pixels.permute(2, 0, 1).to(torch.float32).div(255), int(self.labels[i])


def has_webdataset() -> bool:
    """Return whether the package is installed: a tar file read by hand would not be it."""
    return importlib.util.find_spec("webdataset") is not None


def webdataset_turn(paths: SplitPaths, size: int, scratch: Path) -> Turn:
    import webdataset

    shards = scratch / "shards"
    if not shards.is_dir():
        shards.mkdir()
        write_shards(paths, shards, webdataset)
    names = [str(path) for path in sorted(shards.glob("*.tar"))]
    stored = webdataset.WebDataset(names, shardshuffle=len(names), empty_check=False)
    batched = stored.shuffle(1000).decode().to_tuple("npy", "cls").batched(size, partial=False)

    def turn(_: int) -> int:
        num = 0
        for images, _ in batched:
            num += len(images)
            if num >= 2 * SLOW_PATCHES:
                break
        return num

    return turn


def write_shards(paths: SplitPaths, folder: Path, webdataset: Any) -> None:
    """Write the first patches as shards of 1,024."""
    labels = load_labels(paths.y)
    with (
        h5py.File(paths.x) as file,
        webdataset.ShardWriter(str(folder / "%04d.tar"), maxcount=1024, verbose=0) as writer,
    ):
        for number, patch in enumerate(file["x"][:SHARDED_PATCHES]):
            writer.write({"__key__": f"{number:06d}", "npy": patch, "cls": int(labels[number])})


if __name__ == "__main__":
    main()
