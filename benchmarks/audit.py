"""How long an audit of a data set of PCam's full size takes, and how much memory.

    python benchmarks/audit.py data/pcam --out audit.json

Writes three splits of 262,144 + 32,768 + 32,768 patches (9 GB) beside the real ones they are made
of: each is a real patch, rolled by a random offset and made a little lighter or darker, so that no
two are alike. Then, in turn: a bare pass that reads and hashes the same bytes (SHA-256 of each
file), `ml-core audit` and `ml-core audit --quick`, each in a process of its own whose private
anonymous memory is watched.

Wanted: full in under 180 s and 2 GB, quick in under 10 s.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ml_core.data.checks import hash_file
from ml_core.data.layout import split_paths
from ml_core.reproducibility import hardware_record

SIZES = {"train": 262_144, "valid": 32_768, "test": 32_768}
BLOCK = 512
WANTED = {"full_s": 180, "full_mb": 2000, "quick_s": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of real patches in PCam's layout")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--share", type=float, default=1.0, help="of PCam's size")
    parser.add_argument("--folder", type=Path, help="keep the big data set there, or use it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.source) as temporary:
        folder = options.folder or Path(temporary)
        if not split_paths(folder, "test").y.exists():
            for seed, (split, num) in enumerate(SIZES.items()):
                write_split(options.source, folder, split, round(num * options.share), seed)
        figures = measure(folder)
    figures["wanted"] = WANTED
    figures["machine"] = hardware_record()
    print(json.dumps(figures, indent=1))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


def write_split(source: Path, folder: Path, split: str, num: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    real, made = split_paths(source, split), split_paths(folder, split)
    with h5py.File(real.x) as x_file, h5py.File(real.y) as y_file:
        patches, labels = x_file["x"][:], y_file["y"][:].reshape(-1)
    chosen = np.arange(num) % len(patches)
    with h5py.File(made.x, "w") as file:
        x = file.create_dataset("x", (num, *patches.shape[1:]), dtype="uint8")
        for start in range(0, num, BLOCK):
            block = patches[chosen[start : start + BLOCK]].astype(np.int16)
            for patch in block:
                patch[:] = np.roll(patch, rng.integers(4, 92, 2), axis=(0, 1))
                patch += rng.integers(-12, 13)
            x[start : start + len(block)] = np.clip(block, 0, 255)
    with h5py.File(made.y, "w") as file:
        file["y"] = labels[chosen].reshape(-1, 1, 1, 1)


def measure(folder: Path) -> dict[str, Any]:
    paths = [path for split in SIZES for path in (split_paths(folder, split).x,)]
    num_patches = sum(len(h5py.File(path)["x"]) for path in paths)
    for path in paths:
        hash_file(path)  # so that the disk is as warm for the first as for the last
    started = time.monotonic()
    for path in paths:
        hash_file(path)
    bare_s = time.monotonic() - started
    full_s, full_mb = run_watched(["audit", str(folder)])
    quick_s, quick_mb = run_watched(["audit", "--quick", str(folder)])
    return {
        "num_patches": num_patches,
        "gigabytes": round(sum(path.stat().st_size for path in paths) / 1e9, 2),
        "bare_read_and_hash_s": round(bare_s, 1),
        "full_s": round(full_s, 1),
        "full_mb": round(full_mb),
        "full_over_bare": round(full_s / bare_s, 1),
        "quick_s": round(quick_s, 1),
        "quick_mb": round(quick_mb),
    }


def run_watched(arguments: list[str]) -> tuple[float, float]:
    """Return the seconds a command took and the most MB of its own that it held."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_core.cli", *arguments], stdout=subprocess.PIPE, text=True
    )
    highest = 0.0
    while process.poll() is None:
        highest = max(highest, anonymous_mb(process.pid))
        time.sleep(0.2)
    seconds = time.monotonic() - started
    assert process.stdout is not None
    print(process.stdout.read())
    if process.returncode not in (0, 3):  # 3: errors were found in the data
        raise SystemExit(f"ml-core {' '.join(arguments)} ended with {process.returncode}")
    return seconds, highest


def anonymous_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next(
        (int(line.split()[1]) / 1000 for line in lines if line.startswith("Anonymous:")), 0.0
    )


if __name__ == "__main__":
    main()
