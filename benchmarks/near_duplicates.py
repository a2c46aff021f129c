"""How many planted near duplicates are found, how many pairs are false, and how long it takes.

    python benchmarks/near_duplicates.py PCAM_DIR [--out results.json]

PCAM_DIR holds real patches in PCam's layout. 4,000 patches of train, no two equal, are searched
together with altered copies of 1,000 of them, one kind of change at a time; a pair of a patch and
its own copy counts as found, any other pair as false. Shifted copies are real ones: both are cut,
94 pixels wide, from one patch of 96. The 1,000 flattest of all patches are altered in turn too. The
time is that of 327,680 descriptors of real pieces: each patch is cut into 16 without overlap, which
lie far closer to each other than whole patches do.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ml_core.audit.checks.near_duplicates import find_near_duplicates
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.fingerprint import measure_fingerprint
from ml_core.data.layout import SPLITS, split_paths
from ml_core.data.patch_file import PatchFile, evenly_spaced
from ml_core.reproducibility import hardware_record

NUM_PATCHES, NUM_COPIES, NUM_FULL = 4000, 1000, 327_680
MIN_STD = 10.0  # grey levels, of luma; the audit compares no flatter ones
BARS = {"orientation": 0.99, "jpeg": 0.95, "shift": 0.95, "false_per_10000": 1.0}

Change = Callable[[np.ndarray], np.ndarray]  # of patches (n, H, W, 3)


def jpeg(patches: np.ndarray, quality: int) -> np.ndarray:
    def encoded(patch: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(patch)).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([encoded(patch) for patch in patches])


def brighter(patches: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(np.rint(patches * factor), 0, 255).astype(np.uint8)


def oriented(patches: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    turned = np.rot90(patches, turns, axes=(1, 2))
    return turned[:, :, ::-1] if mirrored else turned


def cut(patches: np.ndarray, down: int = 0, right: int = 0) -> np.ndarray:
    """Return the middle of the patches, two pixels less high and wide, moved by up to one."""
    height, width = patches.shape[1:3]
    return patches[:, 1 + down : height - 1 + down, 1 + right : width - 1 + right]


def changes() -> dict[str, tuple[Change, Change]]:
    """Return by name what is done to the patches and what to the copies."""

    def same(patches: np.ndarray) -> np.ndarray:
        return patches

    table: dict[str, tuple[Change, Change]] = {}
    for turns in range(4):
        for mirrored in (False, True):
            if turns or mirrored:
                name = f"orientation turned {90 * turns}{', mirrored' * mirrored}"
                table[name] = (same, lambda x, t=turns, m=mirrored: oriented(x, t, m))
                table[f"combined {name}, jpeg 50"] = (
                    same,
                    lambda x, t=turns, m=mirrored: jpeg(oriented(x, t, m), 50),
                )
    for quality in (50, 60, 70, 80, 90):
        table[f"jpeg {quality}"] = (same, lambda x, q=quality: jpeg(x, q))
    for factor in (0.9, 0.95, 1.05, 1.1):
        table[f"brightness {factor}"] = (same, lambda x, f=factor: brighter(x, f))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if down or right:
                name = f"shift {down:+} down {right:+} right"
                table[name] = (cut, lambda x, d=down, r=right: cut(x, d, r))
    table["combined shift +1 +1, jpeg 50"] = (cut, lambda x: jpeg(cut(x, 1, 1), 50))
    table["combined turned 90, brightness 0.9, jpeg 50"] = (
        same,
        lambda x: jpeg(brighter(oriented(x, 1, False), 0.9), 50),
    )
    return table


def describe(patches: np.ndarray) -> np.ndarray:
    blocks = (Block(patches[i : i + 32]) for i in range(0, len(patches), 32))
    return np.concatenate([measure_fingerprint(block)["descriptors"] for block in blocks])


def textured(patches: np.ndarray) -> np.ndarray:
    """Return the patches that differ from each other and have some texture."""
    _, first = np.unique(patches.reshape(len(patches), -1), axis=0, return_index=True)
    patches = patches[np.sort(first)]
    return patches[np.array([luma_std(patch) for patch in patches]) >= MIN_STD]


def luma_std(patch: np.ndarray) -> float:
    return float(Block(patch[None]).luma.std())


def search(patches: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Return the pairs found (k, 2), and what was not looked at."""
    found = find_near_duplicates(
        describe(patches), np.arange(len(patches)), lambda rows: patches[rows]
    )
    return found.pairs, {"crowded": found.num_crowded, "unverified": found.num_unverified}


def measure_recall(clean: np.ndarray, chosen: np.ndarray) -> dict[str, dict[str, float]]:
    results = {}
    for name, (of_patch, of_copy) in changes().items():
        patches = of_patch(clean)
        copies = of_copy(clean[chosen])
        pairs, _ = search(np.concatenate([patches, copies]))
        wanted = {(int(c), len(clean) + i) for i, c in enumerate(chosen)}
        hits = sum((int(a), int(b)) in wanted for a, b in pairs)
        results[name] = {"recall": hits / NUM_COPIES, "false_pairs": len(pairs) - hits}
        print(f"{name:55} {results[name]}", flush=True)
    return results


def measure_false_pairs(folder: Path) -> dict[str, float]:
    """Search every patch of all splits, none of them planted."""
    files = [PatchFile(split_paths(folder, split).x) for split in SPLITS]
    patches = textured(np.concatenate([f.read(np.arange(len(f))) for f in files]))
    pairs, left_out = search(patches)
    return {
        "patches": len(patches),
        "pairs": len(pairs),
        "per_10000": 1e4 * len(pairs) / len(patches),
        **left_out,
    }


def peak_mb() -> float:
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) / 1024


def measure_time(folder: Path) -> dict[str, float]:
    """Time the search of as many descriptors as PCam has patches, with the memory it takes."""
    pieces, size = [], 24
    for file in (PatchFile(split_paths(folder, split).x) for split in SPLITS):
        for start in range(0, len(file), 500):
            patches = file.read(np.arange(start, min(start + 500, len(file))))
            grid = patches.reshape(-1, 4, size, 4, size, 3).swapaxes(2, 3)
            pieces.append(describe(textured(grid.reshape(-1, size, size, 3))))
    descriptors = np.concatenate(pieces)[:NUM_FULL]
    assert len(descriptors) == NUM_FULL
    blank = np.zeros((1, size, size, 3), np.uint8)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    found = find_near_duplicates(
        descriptors, np.arange(NUM_FULL), lambda rows: np.repeat(blank, len(rows), axis=0)
    )
    return {
        "descriptors": NUM_FULL,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "load_average": os.getloadavg()[0],  # above 1, others had a part of the seconds
        "peak_growth_mb": peak_mb() - before,
        "crowded": found.num_crowded,
        "unverified": found.num_unverified,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "near_duplicates.json"
    )
    arguments = parser.parse_args()
    record: dict[str, object] = {"hardware": hardware_record(), "bars": BARS}
    record["time"] = measure_time(arguments.folder)  # first, while the memory's peak is low
    print(record["time"], flush=True)
    train = PatchFile(split_paths(arguments.folder, "train").x)
    clean = textured(train.read(evenly_spaced(len(train), NUM_PATCHES)))
    record["changes"] = measure_recall(clean, evenly_spaced(len(clean), NUM_COPIES))
    every = textured(train.read(np.arange(len(train))))
    flattest = np.argsort([luma_std(patch) for patch in every], kind="stable")[:NUM_COPIES]
    record["changes_of_the_flattest"] = measure_recall(every[flattest], np.arange(NUM_COPIES))
    record["clean"] = measure_false_pairs(arguments.folder)
    print(record["clean"])
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
