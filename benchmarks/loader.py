"""How fast shuffled batches come off a flat file, against torchvision's way and a bare gather.

    python benchmarks/loader.py --out loader.json

Batches of 64 and 256 from a uint8 file of 30,000 patches (0.8 GB, made on the spot and still in the
page cache), in this process, on one thread. The four take turns; the median of the rounds counts.

  torchvision  per item: open both HDF5 files, read one patch, PIL image, ToTensor (float CHW in
               0..1), torch's DataLoader and its default collate; as torchvision.datasets.PCAM does
  gather       memmap[sorted indices], and nothing else: a file that is cut short kills the process
  read         the same rows by PatchFile.read, a preadv for each run of rows
  ours         build_loader: shuffled, balanced by class, labels and rows included

Wanted: ours at least 20 times torchvision; read 0.8 times the gather, which it does not reach: a
call per patch costs 1 us, and the kernel copies more slowly than numpy does. A C loop of nothing
but preadv is as far away. Excluded: what a device would have to do besides, which for ours is
making floats of bytes.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ml_core.data import PCAMDataset
from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.data.patch_file import Rows
from ml_core.reproducibility import hardware_record

BATCH_SIZES = (64, 256)
TORCHVISION_BATCHES = 8  # of a round: an epoch of its own would take most of a minute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--patches", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_patches(Path(folder), options.patches)
        results = {str(size): measure(Path(folder), size, options.rounds) for size in BATCH_SIZES}
    summary = {}
    for size, rates in results.items():
        medians = {name: statistics.median(values) for name, values in rates.items()}
        ratios = {
            "ours / torchvision": medians["ours"] / medians["torchvision"],
            "ours / gather": medians["ours"] / medians["gather"],
            "read / gather": medians["read"] / medians["gather"],
        }
        summary[size] = {"patches_per_s": rates, "median": medians, "ratio": ratios}
        print(f"batches of {size}")
        for name, rate in medians.items():
            print(
                f"  {name:12} {rate:10,.0f} patches/s  ({min(rates[name]):,.0f} .. "
                f"{max(rates[name]):,.0f} in {options.rounds} rounds)"
            )
        for name, ratio in ratios.items():
            print(f"  {name:20} {ratio:6.2f}")
    if options.out:
        result = {"batches_of": summary, "machine": hardware_record()}
        options.out.write_text(json.dumps(result, indent=2) + "\n")


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


def measure(folder: Path, batch_size: int, num_rounds: int) -> dict[str, list[float]]:
    """Return patches per second of every round of the four, which take turns."""
    paths = split_paths(folder, "train")
    dataset = PCAMDataset(paths.x, paths.y)
    ours = build_loader(dataset, batch_size, shuffle=True, balanced=True, seed=0)
    torchvision = DataLoader(TorchvisionPCAM(paths.x, paths.y), batch_size, shuffle=True)
    with h5py.File(paths.x) as file:
        offset, shape = file["x"].id.get_offset(), file["x"].shape
    mapped = np.memmap(paths.x, np.uint8, "r", offset, shape)
    rng = np.random.default_rng(0)

    def sizes_of_ours(epoch: int) -> Iterator[int]:
        ours.batch_sampler.set_epoch(epoch)
        return (len(batch.images) for batch in ours)

    def sorted_batches() -> Iterator[Rows]:
        order = rng.permutation(len(mapped))
        starts = range(0, len(mapped), batch_size)
        return (np.sort(order[start : start + batch_size]) for start in starts)

    def sizes_of_gather(epoch: int) -> Iterator[int]:
        return (len(mapped[rows]) for rows in sorted_batches())

    def sizes_of_read(epoch: int) -> Iterator[int]:
        return (len(dataset.file.read(rows)) for rows in sorted_batches())

    def sizes_of_torchvision(epoch: int) -> Iterator[int]:
        return (len(images) for images, _ in islice(torchvision, TORCHVISION_BATCHES))

    ways = {
        "torchvision": sizes_of_torchvision,
        "gather": sizes_of_gather,
        "read": sizes_of_read,
        "ours": sizes_of_ours,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(num_rounds + 1):
        for name, sizes in ways.items():
            rate = patches_per_second(sizes, epoch)
            if epoch > 0:  # the first round warms up
                rates[name].append(rate)
    return rates


def patches_per_second(sizes: Callable[[int], Iterator[int]], epoch: int) -> float:
    started = time.perf_counter()
    num = sum(sizes(epoch))
    return num / (time.perf_counter() - started)


class TorchvisionPCAM(Dataset):
    """What torchvision.datasets.PCAM with ToTensor does, from its public documentation."""

    def __init__(self, x_path: Path, y_path: Path) -> None:
        self.x_path = x_path
        self.y_path = y_path
        with h5py.File(x_path) as file:
            self.num = len(file["x"])

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        with h5py.File(self.x_path) as file:
            image = Image.fromarray(file["x"][i]).convert("RGB")
        with h5py.File(self.y_path) as file:
            label = int(file["y"][i, 0, 0, 0])
        pixels = torch.from_numpy(np.array(image))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255), label


if __name__ == "__main__":
    main()
